//! The words of health, log and `doctor` for an Engine that can't be asked.

use crate::model::docker::{EngineFault, EngineTrouble};
use crate::settings::advice::SILENT_DOCKERD;
use crate::telemetry::fault::Fault;
use crate::text::age::age_text;

/// What to do about an Engine that can't be asked, by what happened.
pub fn cure(fault: EngineFault, socket: &str) -> String {
    match fault_text(fault, socket) {
        Some((what, cure)) => format!("{what}: {cure}"),
        None => OTHER_CURE.to_owned(),
    }
}

/// What title and runbook go by.
pub fn fault(fault: EngineFault) -> Fault {
    match fault {
        EngineFault::Denied => Fault::DockerDenied,
        EngineFault::Away => Fault::DockerAway,
        EngineFault::EventsRefused => Fault::EventsRefused,
        EngineFault::Other => Fault::DockerFails,
        EngineFault::Silent { .. } | EngineFault::NotYet => Fault::Usual,
    }
}

const OTHER_CURE: &str = "check dockerd: timeout 5 docker info must answer at once";

/// What is wrong, in words that say more than the error, and what to do.
fn fault_text(fault: EngineFault, socket: &str) -> Option<(String, &'static str)> {
    match fault {
        EngineFault::Silent { .. } => {
            Some(("dockerd is there and does not answer".to_owned(), SILENT_DOCKERD))
        }
        EngineFault::Denied => {
            let cure = "add it to the socket's group (usermod -aG docker USER; in a unit: SupplementaryGroups=docker)";
            Some((format!("this user may not use {socket}"), cure))
        }
        EngineFault::Away => {
            let cure = "start dockerd, name its socket with container_monitor.socket_path, or set \
                        container_monitor.enabled: false on a host without Docker";
            Some((format!("no process listens at {socket}"), cure))
        }
        EngineFault::EventsRefused => {
            let cure = "allow GET /events in what stands before dockerd (an authorization plugin; for a socket proxy set EVENTS=1)";
            Some((
                format!(
                    "what answers at {socket} refuses Docker's events, so containers are found by a list every few seconds, and all lines of one that lives shorter can be lost"
                ),
                cure,
            ))
        }
        EngineFault::NotYet | EngineFault::Other => None,
    }
}

/// What health says of an Engine that can't be asked: the cause and its cost, what to do, then details. `running` =
/// containers that ran when the Engine last answered; `seconds` = time since the error.
pub fn trouble_text(
    trouble: &EngineTrouble,
    socket: &str,
    reads_files: bool,
    running: u64,
    seconds: u64,
) -> String {
    let EngineTrouble { fault, text } = trouble;
    let waits = "new containers and logs read over the API wait";
    if let EngineFault::Silent { waited_s } = fault {
        let files =
            if reads_files { "; whatever dockerd has written to json-file logs is still read" } else { "" };
        let whose = match running {
            0 => "containers".to_owned(),
            1 => "the one running container".to_owned(),
            many => format!("all {many} running containers"),
        };
        // When the error came, the request had already waited this long.
        let since = age_text(seconds + waited_s);
        return format!(
            "Docker has not answered for {since}, so lines of {whose} are late; {SILENT_DOCKERD}; nothing is lost as far as the \
             agent can tell{files}; {waits}; the last error: {text}"
        );
    }
    if *fault == EngineFault::EventsRefused
        && let Some((what, cure)) = fault_text(*fault, socket)
    {
        return format!("{what} ({text}); {cure}; containers that a list names are captured as usual");
    }
    let files = if reads_files { "json-file logs of known containers are still read; " } else { "" };
    match fault_text(*fault, socket) {
        Some((what, cure)) => format!("{what} ({text}); {cure}; {files}{waits}"),
        None => format!("{text}; {OTHER_CURE}; {files}{waits}"),
    }
}

#[cfg(test)]
mod tests {
    use super::*;
    use crate::telemetry::status::Health;

    #[test]
    fn each_trouble_with_docker_has_its_cure() {
        for (fault, expected) in [
            (EngineFault::Silent { waited_s: 30 }, "does not answer"),
            (EngineFault::Denied, "usermod -aG docker"),
            (EngineFault::Away, "no process listens at /d.sock: start dockerd"),
            (EngineFault::EventsRefused, "allow GET /events"),
            (EngineFault::Other, "check dockerd"),
        ] {
            let told = cure(fault, "/d.sock");
            assert!(told.contains(expected), "{fault:?}: {told}");
        }
    }

    #[test]
    fn cause_and_cure_of_a_trouble_with_docker_stand_before_the_details() {
        let trouble = |fault, text: &str| EngineTrouble { fault, text: text.to_owned() };
        let silent = trouble(EngineFault::Silent { waited_s: 5 }, "no answer to GET /_ping");
        let silent = trouble_text(&silent, "/d.sock", true, 29, 18);
        assert!(silent.starts_with(
            "Docker has not answered for 23 s, so lines of all 29 running containers are late; check dockerd with timeout 5"
        ));
        assert!(silent.contains("json-file logs is still read"), "{silent}");
        assert!(silent.ends_with("the last error: no answer to GET /_ping"), "{silent}");
        let told =
            crate::telemetry::health_text::HealthText::of("docker", &Health::new(false, silent.as_str()));
        assert!(told.lines.len() <= 3 && told.lines[1].starts_with("Check dockerd"), "{told:?}");
        assert!(told.lines[2].starts_with("Nothing is lost as far as"), "{told:?}");
        assert!(told.all.iter().any(|line| line.contains("GET /_ping")), "{told:?}");
        let refused = "connecting to /d.sock: Connection refused (os error 111)";
        let away = trouble_text(&trouble(EngineFault::Away, refused), "/d.sock", false, 29, 0);
        let expected = "no process listens at /d.sock (connecting to /d.sock: Connection refused (os error 111)); start dockerd";
        assert!(away.starts_with(expected), "{away}");
        let told = "asked for events, the Engine answered 403: no";
        let refused = trouble_text(&trouble(EngineFault::EventsRefused, told), "/d.sock", true, 29, 0);
        assert!(
            refused
                .contains("lives shorter can be lost (asked for events, the Engine answered 403: no); allow")
        );
        assert!(!refused.contains("wait"), "{refused}");
        assert!(!away.contains("json-file") && away.ends_with("over the API wait"));
        // The text alone changes nothing.
        let other = trouble_text(
            &trouble(EngineFault::Other, "permission denied, no answer, timed out"),
            "/d.sock",
            true,
            1,
            0,
        );
        assert!(other.contains(OTHER_CURE) && !other.contains("usermod"), "{other}");
    }
}
