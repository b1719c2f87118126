//! What holds where the config says nothing. `configs/config.yaml` shows the same values; a test compares them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Admin, ContainerMonitor, FileFormat, FileMonitor, FileSet, LocalFile, Log, LogFormat, LogLevel,
    MetricsSettings, ReadFrom, ResourceMonitoring, Rotation, Select, Settings, Sinks, StartAt,
};
use crate::limits;

const fn seconds(seconds: u64) -> Duration {
    Duration::from_secs(seconds)
}

impl Default for Settings {
    fn default() -> Self {
        Settings {
            data_dir: PathBuf::from("/var/lib/capturer"),
            shutdown_timeout: seconds(30),
            line_bytes_max: limits::LINE_BYTES_DEFAULT,
            buffer_bytes_max: 32 * 1024 * 1024,
            admin: Admin::default(),
            log: Log::default(),
            container_monitor: ContainerMonitor::default(),
            file_monitor: FileMonitor::default(),
            sinks: Sinks::default(),
            resource_monitoring: ResourceMonitoring::default(),
            metrics: MetricsSettings::default(),
        }
    }
}

impl Default for Admin {
    fn default() -> Self {
        // Loopback only: what it shows names every container of the host.
        Admin { listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8001))) }
    }
}

impl Default for Log {
    fn default() -> Self {
        Log { level: LogLevel::Info, format: LogFormat::Text }
    }
}

impl Default for ContainerMonitor {
    fn default() -> Self {
        ContainerMonitor {
            enabled: true,
            socket_path: PathBuf::from("/var/run/docker.sock"),
            read_from: ReadFrom::Auto,
            start_at: StartAt::Beginning,
            select: Select::default(),
            record_labels: ["com.docker.compose.project", "com.docker.compose.service"]
                .map(String::from)
                .to_vec(),
            list_interval: seconds(30),
            reconnect_interval: seconds(30),
            read_timeout: seconds(30),
            max_concurrent: 25,
            rotation: Rotation::default(),
        }
    }
}

impl Default for Rotation {
    fn default() -> Self {
        Rotation {
            enabled: true,
            interval: seconds(5 * 60),
            idle_interval: seconds(15 * 60),
            max_concurrent_streams: 50,
            pause_between_rotations: Duration::from_millis(100),
        }
    }
}

impl Default for FileSet {
    fn default() -> Self {
        FileSet {
            paths: Vec::new(),
            exclude: Vec::new(),
            format: FileFormat::Auto,
            start_at: StartAt::Beginning,
            labels: Default::default(),
        }
    }
}

impl Default for Sinks {
    fn default() -> Self {
        Sinks { local_file: Some(LocalFile::default()), stdout: false }
    }
}

impl Default for LocalFile {
    fn default() -> Self {
        LocalFile { directory: PathBuf::from("./captured"), file: "{container_name}.ndjson".to_owned() }
    }
}

impl Default for ResourceMonitoring {
    fn default() -> Self {
        ResourceMonitoring { enabled: true, check_interval: seconds(15) }
    }
}

impl Default for MetricsSettings {
    fn default() -> Self {
        MetricsSettings { max_containers: 1000 }
    }
}
