//! file_name
