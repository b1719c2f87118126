//! The defaults. `configs/config.yaml` shows the same values; a test compares them.

use std::net::{Ipv4Addr, SocketAddr};
use std::path::PathBuf;
use std::time::Duration;

use super::{
    Admin, CircuitBreaker, Compress, ContainerMonitor, FileFormat, FileMonitor, FileSet, FileTemplate, Fsync,
    LocalFile, Log, LogFormat, LogLevel, MetricsSettings, OutputFormat, Privileges, ReadFrom, Remember,
    ResourceMonitoring, Rotation, Select, Settings, Sinks, StartAt, TextRules, TtyRules,
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
            privileges: Privileges::Drop,
            line_bytes_max: limits::LINE_BYTES_DEFAULT,
            buffer_bytes_max: 32 * 1024 * 1024,
            deleted_open_bytes_max: 1 << 30,
            remember: Remember::default(),
            admin: Admin::default(),
            log: Log::default(),
            container_monitor: ContainerMonitor::default(),
            file_monitor: FileMonitor::default(),
            pipelines: Vec::new(),
            sinks: Sinks::default(),
            resource_monitoring: ResourceMonitoring::default(),
            metrics: MetricsSettings::default(),
        }
    }
}

impl Default for Remember {
    fn default() -> Self {
        Remember { age: seconds(7 * 24 * 60 * 60), files: 100_000 }
    }
}

impl Default for Admin {
    fn default() -> Self {
        // Loopback only: the status page names every container of the host.
        Admin {
            listen: Some(SocketAddr::from((Ipv4Addr::LOCALHOST, 8001))),
            hosts: Vec::new(),
            token: None,
            tls: None,
            socket: None,
            tap: true,
            profile: false,
        }
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
            include_self: false,
            record_labels: ["com.docker.compose.project", "com.docker.compose.service"]
                .map(String::from)
                .to_vec(),
            tty: TtyRules::default(),
            list_interval: seconds(30),
            reconnect_interval: seconds(30),
            read_timeout: seconds(30),
            max_concurrent: 25,
            rotation: Rotation::default(),
            circuit_breaker: CircuitBreaker::default(),
        }
    }
}

impl Default for CircuitBreaker {
    fn default() -> Self {
        CircuitBreaker { failures: 10, pause: seconds(2 * 60) }
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

impl Default for FileMonitor {
    fn default() -> Self {
        FileMonitor {
            sweep_interval: seconds(30),
            max_open: limits::FILES_OPEN_CEILING,
            close_idle_after: Duration::ZERO,
            files: Vec::new(),
        }
    }
}

impl Default for FileSet {
    fn default() -> Self {
        FileSet {
            paths: Vec::new(),
            exclude: Vec::new(),
            follow_links: false,
            roots: Vec::new(),
            may_be_empty: false,
            ignore_older: Duration::ZERO,
            format: FileFormat::Auto,
            text: TextRules { unfinished_line_after: seconds(5), ..TextRules::default() },
            start_at: StartAt::Beginning,
            labels: Default::default(),
        }
    }
}

impl Default for Sinks {
    fn default() -> Self {
        Sinks {
            local_file: Some(LocalFile::default()),
            loki: None,
            loki_left_off: false,
            stdout: false,
            stdout_format: OutputFormat::Ndjson,
        }
    }
}

impl Default for LocalFile {
    fn default() -> Self {
        LocalFile {
            directory: PathBuf::from("./captured"),
            file: FileTemplate::parse("{container_name}.ndjson").expect("our own template is good"),
            format: OutputFormat::Ndjson,
            max_size: 100 * 1024 * 1024,
            rotate_every: Duration::ZERO,
            max_files: 10,
            max_bytes: 0,
            max_age: Duration::ZERO,
            compress: Compress::Zstd,
            fsync: Fsync::Never,
            file_mode: 0o640,
        }
    }
}

impl Default for ResourceMonitoring {
    fn default() -> Self {
        ResourceMonitoring { enabled: true, check_interval: seconds(15), watch_dockerd: false }
    }
}

impl Default for MetricsSettings {
    fn default() -> Self {
        MetricsSettings { max_containers: 1000 }
    }
}
