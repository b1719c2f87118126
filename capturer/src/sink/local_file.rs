//! local_file
