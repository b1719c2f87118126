//! What a reload may change. Some settings are used only once, at the start, and what they made lasts as long as the
//! process. Changing those needs a restart, and the agent says so.

use super::Settings;
use super::reader::Reader;

/// What is said of a setting that only a restart changes.
pub(super) const NEEDS_RESTART: &str = "differs from what the agent was started with, and needs a restart";

/// A setting that can't be used for a reason outside the config.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Objection {
    /// Dotted path of the key.
    pub key: &'static str,
    /// What is wrong, and what to do.
    pub message: String,
}

/// Reports every setting that differs from `running` and can't be changed by a reload.
pub(super) fn check(new: &Settings, running: &Settings, reader: &Reader) {
    // Exhaustive on purpose: whoever adds a setting decides here whether it belongs to the run or to the process.
    let Settings {
        data_dir,
        shutdown_timeout: _,
        privileges,
        line_bytes_max: _,
        buffer_bytes_max: _,
        deleted_open_bytes_max: _,
        remember: _,
        admin,
        log,
        container_monitor,
        file_monitor: _,
        pipelines: _,
        sinks: _,
        resource_monitoring,
        metrics,
    } = new;
    let monitoring = &running.resource_monitoring;
    let table = [
        ("data_dir", *data_dir != running.data_dir),
        ("privileges", *privileges != running.privileges),
        ("admin.listen", admin.listen != running.admin.listen),
        ("admin.hosts", admin.hosts != running.admin.hosts),
        ("admin.token", admin.token != running.admin.token),
        ("admin.tls_cert", admin.tls != running.admin.tls),
        ("admin.socket", admin.socket != running.admin.socket),
        ("admin.tap", admin.tap != running.admin.tap),
        ("admin.profile", admin.profile != running.admin.profile),
        ("log.format", log.format != running.log.format),
        ("metrics.max_containers", *metrics != running.metrics),
        ("resource_monitoring.enabled", resource_monitoring.enabled != monitoring.enabled),
        ("resource_monitoring.watch_dockerd", resource_monitoring.watch_dockerd != monitoring.watch_dockerd),
        // The watched daemon is found by its socket.
        (
            "container_monitor.socket_path",
            monitoring.watch_dockerd
                && container_monitor.socket_path != running.container_monitor.socket_path,
        ),
        (
            "container_monitor.enabled",
            monitoring.watch_dockerd && container_monitor.enabled != running.container_monitor.enabled,
        ),
    ];
    for (key, _) in table.into_iter().filter(|(_, differs)| *differs) {
        reader.problem(key, NEEDS_RESTART);
    }
}

#[cfg(test)]
mod tests {
    use super::super::file::{self, Outside};
    use super::*;

    fn problems(text: &str, object: &dyn Fn(&Settings) -> Vec<Objection>) -> Vec<String> {
        let outside = Outside::real();
        let running = file::parse("c.yaml", "", &[], &outside).expect("the defaults are good");
        let read = file::parse_against("c.yaml", text, &[], &outside, &running, object);
        read.err().map(|error| error.to_string().lines().map(str::to_owned).collect()).unwrap_or_default()
    }

    #[test]
    fn what_the_process_has_is_refused_by_name_and_line() {
        let text = "data_dir: /elsewhere\nprivileges: keep\nadmin:\n  listen: \"\"\n\
                    log: {level: debug, format: json}\nmetrics: {max_containers: 7}\n\
                    resource_monitoring:\n  enabled: false\n  check_interval: 5s\n\
                    container_monitor: {socket_path: /other.sock}\nshutdown_timeout: 5s\n";
        let found = problems(text, &|_| panic!("asked although the config is bad"));
        let places: Vec<&str> =
            found.iter().map(|line| line.split(": differs").next().unwrap_or_default()).collect();
        assert_eq!(
            places,
            [
                "c.yaml:1:11: data_dir",
                "c.yaml:2:13: privileges",
                "c.yaml:4:11: admin.listen",
                "c.yaml:5:29: log.format",
                "c.yaml:6:27: metrics.max_containers",
                "c.yaml:8:12: resource_monitoring.enabled",
            ]
        );
    }

    #[test]
    fn what_a_run_has_may_change() {
        let text = "log: {level: debug}\ncontainer_monitor: {socket_path: /other.sock, read_from: api}\n\
                    sinks: {stdout: {enabled: true}}\nlimits: {line_bytes_max: 64KiB}\n";
        assert_eq!(problems(text, &|_| Vec::new()), Vec::<String>::new());
    }

    #[test]
    fn objections_have_a_place_too() {
        let object = |settings: &Settings| {
            assert!(settings.sinks.stdout);
            vec![Objection { key: "sinks.stdout.enabled", message: "not today".to_owned() }]
        };
        let found = problems("sinks:\n  stdout: {enabled: true}\n", &object);
        assert_eq!(found, ["c.yaml:2:21: sinks.stdout.enabled: not today"]);
    }
}
