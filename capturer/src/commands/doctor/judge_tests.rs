//! Everything that can be wrong, with its line and the cure.

use std::path::PathBuf;

use super::*;
use crate::commands::doctor::facts::UnreadFact;
use crate::commands::tried_dir::Unfit;

/// Every check, in the order of the lines. Scripts may depend on these names.
const CHECKS: [&str; 18] = [
    "config",
    "kernel",
    "io_uring",
    "data_dir",
    "local_file",
    "loki",
    "admin",
    "file_monitor",
    "docker",
    "logs",
    "containers",
    "capabilities",
    "btf",
    "lockdown",
    "witness",
    "files",
    "locked_memory",
    "inotify",
];

/// A machine with nothing wrong.
fn well() -> Facts {
    let there = || DirectoryState::There { writable: true, free_bytes: 5 << 30, may_hang: None };
    let directory = |key, path: &str| DirectoryFact { key, path: PathBuf::from(path), state: there() };
    Facts {
        config: ConfigFact::Good("c.yaml".to_owned()),
        release: "6.12.95+deb12-cloud-amd64".to_owned(),
        ring: None,
        lacks_locked_memory: false,
        has_btf: true,
        lockdown: Some("none".to_owned()),
        capabilities: CapabilitySet::DAC_READ_SEARCH | CapabilitySet::BPF | CapabilitySet::PERFMON,
        witness: WitnessFact {
            tier: Tier::Tracing,
            programs: Some("for Linux 5.15 and later"),
            refused: Vec::new(),
            seen: 32,
            not_here: 0,
        },
        container: None,
        limits: LimitsFact {
            files: Some(65_536),
            locked_bytes: None,
            inotify_instances: Some((128, 3)),
            inotify_watches: Some((100_000, 50)),
        },
        wanted: Some(Wanted {
            files: 459,
            running: None,
            directories: vec![
                directory("data_dir", "/data"),
                directory("sinks.local_file.directory", "/out"),
            ],
            admin: Some(("127.0.0.1:8001".parse().unwrap(), Ok(()))),
            socket: None,
            followed: Some(Access { files: 3, looked_at: 3, ..Access::default() }),
            exposure: None,
            loki: Some("http://loki:3100".to_owned()),
            docker: Some(DockerFact {
                socket: "/docker.sock".into(),
                read_from: ReadFrom::Auto,
                answer: Ok(EngineFact {
                    version: "28.5.2".to_owned(),
                    driver: "json-file".to_owned(),
                    containers: 7,
                    logs: "/lib/docker/containers".into(),
                    logs_readable: Ok(()),
                    running: Some(RunningFact { count: 7, looked_at: 7, ..RunningFact::default() }),
                }),
            }),
        }),
    }
}

/// The lines that are not well after one change.
fn amiss(change: impl FnOnce(&mut Facts)) -> Vec<CheckLine> {
    let mut facts = well();
    change(&mut facts);
    judge(&facts).into_iter().filter(|line| line.status != CheckStatus::Ok).collect()
}

/// Exactly these lines are not well, and each message and cure contains its words.
#[track_caller]
fn check(change: impl FnOnce(&mut Facts), expected: &[(&str, CheckStatus, &str, &str)]) {
    let lines = amiss(change);
    let found: Vec<(&str, CheckStatus)> = lines.iter().map(|line| (line.check, line.status)).collect();
    let wanted: Vec<(&str, CheckStatus)> =
        expected.iter().map(|(check, status, ..)| (*check, *status)).collect();
    assert_eq!(found, wanted, "{lines:#?}");
    for (line, (.., message, cure)) in lines.iter().zip(expected) {
        assert!(line.message.contains(message), "{message:?} is not in {line:#?}");
        assert!(line.cure.as_deref().unwrap_or_default().contains(cure), "{cure:?} is not in {line:#?}");
    }
}

fn engine(facts: &mut Facts) -> &mut EngineFact {
    facts.wanted.as_mut().unwrap().docker.as_mut().unwrap().answer.as_mut().unwrap()
}

fn refused(why: &str, denied: bool) -> Refusal {
    Refusal { why: why.to_owned(), denied, silent: false }
}

const UNAVAILABLE: CheckStatus = CheckStatus::Fail(Exit::Unavailable);
const NO_PERMISSION: CheckStatus = CheckStatus::Fail(Exit::NoPermission);

#[test]
fn all_is_well_in_the_order_of_the_checks() {
    let lines = judge(&well());
    assert_eq!(lines.iter().map(|line| line.check).collect::<Vec<_>>(), CHECKS);
    assert!(lines.iter().all(|line| line.status == CheckStatus::Ok && line.cure.is_none()), "{lines:#?}");
    assert_eq!(exit(&lines), Exit::Ok);
}

#[test]
fn a_config_that_is_no_good() {
    check(
        |facts| facts.config = ConfigFact::Bad("c.yaml:1:1: x".to_owned()),
        &[("config", CheckStatus::Fail(Exit::Config), "c.yaml:1:1", "configs/config.yaml")],
    );
    check(
        |facts| facts.config = ConfigFact::Denied("c.yaml: Permission denied".to_owned()),
        &[("config", NO_PERMISSION, "denied", "chmod 640")],
    );
}

#[test]
fn a_kernel_that_lacks_something() {
    let old = ("kernel", CheckStatus::Warn, "Linux 5.4", "newer");
    check(|facts| facts.release = "5.4.0-1".to_owned(), &[old]);
    check(|facts| facts.release = "5.10.0-30".to_owned(), &[]);
    let no_ring = Some(("io_uring_setup failed".to_owned(), "Set it to 0".to_owned()));
    check(|facts| facts.ring = no_ring, &[("io_uring", UNAVAILABLE, "setup failed", "Set it to 0")]);
    check(
        |facts| facts.has_btf = false,
        &[("btf", CheckStatus::Warn, "/sys/kernel/btf/vmlinux", "CONFIG_DEBUG_INFO_BTF")],
    );
    check(
        |facts| facts.lockdown = Some("confidentiality".to_owned()),
        &[("lockdown", CheckStatus::Warn, "confidentiality", "lockdown=integrity")],
    );
    for lockdown in [None, Some("integrity".to_owned())] {
        check(|facts| facts.lockdown = lockdown, &[]);
    }
}

#[test]
fn directories_that_can_not_be_written_in() {
    let at = |index: usize, state: DirectoryState| {
        move |facts: &mut Facts| facts.wanted.as_mut().unwrap().directories[index].state = state
    };
    let there = |writable, free_bytes, may_hang| DirectoryState::There { writable, free_bytes, may_hang };
    check(at(0, DirectoryState::Silent), &[("data_dir", UNAVAILABLE, "hangs", "with data_dir")]);
    check(
        at(1, DirectoryState::Other),
        &[("local_file", UNAVAILABLE, "not a directory", "local_file.directory")],
    );
    check(at(0, there(false, 1 << 40, None)), &[("data_dir", NO_PERMISSION, "/data", "chown")]);
    let on_disk = |writable, free_bytes, may_hang| DirectoryState::Missing {
        place: "/up".into(),
        writable,
        free_bytes,
        may_hang,
    };
    let missing = |writable| on_disk(writable, 5 << 30, None);
    check(at(0, missing(false)), &[("data_dir", NO_PERMISSION, "in /up", "Make /data")]);
    check(at(0, missing(true)), &[]);
    // Of a directory that is still to be made, its disk was not looked at.
    check(
        at(1, on_disk(true, 0, None)),
        &[("local_file", CheckStatus::Warn, "/out will be created in /up: 0 bytes free", "Make room")],
    );
    check(
        at(1, on_disk(true, 5 << 30, Some("NFS"))),
        &[("local_file", CheckStatus::Warn, "/out is on NFS", "local file system")],
    );
    let unfit = DirectoryState::Unfit;
    check(at(0, unfit(Unfit::Full)), &[("data_dir", UNAVAILABLE, "no 64 KiB free", "copy with data_dir")]);
    check(
        at(1, unfit(Unfit::NoFiles("proc"))),
        &[(
            "local_file",
            UNAVAILABLE,
            "it is proc",
            "Name another directory with sinks.local_file.directory",
        )],
    );
    check(
        at(1, there(true, 7 << 20, None)),
        &[("local_file", CheckStatus::Warn, "7.0 MiB free", "Make room")],
    );
    check(
        at(1, there(true, 1 << 40, Some("NFS"))),
        &[("local_file", CheckStatus::Warn, "on NFS", "local file")],
    );
}

/// Health named these files, and `doctor` did not.
#[test]
fn files_that_can_not_be_read_are_named_and_their_number_is_bounded() {
    let access = |change: fn(&mut Access)| {
        move |facts: &mut Facts| change(facts.wanted.as_mut().unwrap().followed.as_mut().unwrap())
    };
    check(
        access(|access| access.denied = vec!["/a.log: Permission denied (os error 13)".to_owned()]),
        &[(
            "file_monitor",
            CheckStatus::Warn,
            "1 can't be read: /a.log: Permission denied",
            "CAP_DAC_READ_SEARCH",
        )],
    );
    check(
        access(|access| access.unlistable.extend(["/d: Permission denied".to_owned()])),
        &[(
            "file_monitor",
            CheckStatus::Warn,
            "1 directory can't be listed, and what is in it is not read: /d",
            "a group",
        )],
    );
    // A pattern that looks into it matches nothing for that reason; another one has a reason of its own.
    for (pattern, told) in
        [("/d/*.log", false), ("/*/a.log", false), ("/d/e/*.log", false), ("/dd/*.log", true)]
    {
        let lines = amiss(|facts| {
            let access = facts.wanted.as_mut().unwrap().followed.as_mut().unwrap();
            access.unlistable.extend(["/d: Permission denied".to_owned()]);
            access.unmatched = vec![pattern.to_owned()];
        });
        assert_eq!(lines[0].message.contains("1 pattern matches no file"), told, "{pattern}: {lines:#?}");
    }
    check(
        access(|access| access.denied = (0..90).map(|number| format!("/{number}: no")).collect()),
        &[(
            "file_monitor",
            CheckStatus::Warn,
            "90 can't be read: /0: no; /1: no; /2: no; /3: no; /4: no; and 85 more",
            "exclude",
        )],
    );
    check(
        access(|access| access.silent = true),
        &[("file_monitor", CheckStatus::Warn, "does not answer", "Bring the file server back")],
    );
    check(
        access(|access| access.unmatched = vec!["/srv/x/*.log (there is no /srv/x)".to_owned()]),
        &[(
            "file_monitor",
            CheckStatus::Warn,
            "1 pattern matches no file: /srv/x/*.log (there is no /srv/x)",
            "may_be_empty",
        )],
    );
    check(
        access(|access| {
            access.unmatched = vec!["/a/*".to_owned(), "/b/*".to_owned()];
            access.silent = true;
        }),
        &[(
            "file_monitor",
            CheckStatus::Warn,
            "does not answer; 2 patterns match no file: /a/*; /b/*",
            "Bring the file server back",
        )],
    );
}

#[test]
fn a_port_that_is_not_to_be_had() {
    let admin = |why: Refusal| {
        move |facts: &mut Facts| {
            let wanted = facts.wanted.as_mut().unwrap();
            wanted.admin.as_mut().unwrap().1 = Err(why);
        }
    };
    check(admin(refused("in use", false)), &[("admin", UNAVAILABLE, "in use", "admin.listen")]);
    check(admin(refused("denied", true)), &[("admin", NO_PERMISSION, "denied", "CAP_NET_BIND_SERVICE")]);
    check(
        |facts| {
            admin(refused("in use, by nginx (process 9)", false))(facts);
            facts.wanted.as_mut().unwrap().running = Some(4711);
        },
        &[(
            "admin",
            UNAVAILABLE,
            "process 4711, and does not listen on 127.0.0.1:8001: in use, by nginx",
            "restart the agent",
        )],
    );
    // The agent of this config has it.
    check(|facts| facts.wanted.as_mut().unwrap().running = Some(4711), &[]);
}

#[test]
fn docker_that_does_not_answer_or_shows_no_logs() {
    let docker = |why: Refusal| {
        move |facts: &mut Facts| facts.wanted.as_mut().unwrap().docker.as_mut().unwrap().answer = Err(why)
    };
    check(docker(refused("denied", true)), &[("docker", CheckStatus::Warn, "denied", "usermod -aG docker")]);
    check(
        docker(Refusal { silent: true, ..refused("no whole answer within 2 s", false) }),
        &[("docker", CheckStatus::Warn, "no whole answer", "live-restore")],
    );
    check(
        docker(refused("no such file", false)),
        &[("docker", CheckStatus::Warn, "no such", "Start dockerd")],
    );
    let logs = |why: Refusal| move |facts: &mut Facts| engine(facts).logs_readable = Err(why);
    check(
        logs(refused("denied", true)),
        &[("logs", CheckStatus::Warn, "over the API", "CAP_DAC_READ_SEARCH")],
    );
    check(logs(refused("no such file", false)), &[("logs", CheckStatus::Warn, "no such", "read_from: api")]);
    check(
        |facts| {
            logs(refused("denied", true))(facts);
            facts.wanted.as_mut().unwrap().docker.as_mut().unwrap().read_from = ReadFrom::File;
        },
        &[("logs", CheckStatus::Warn, "nothing is captured", "CAP_DAC_READ_SEARCH")],
    );
    check(
        |facts| {
            logs(refused("denied", true))(facts);
            facts.wanted.as_mut().unwrap().docker.as_mut().unwrap().read_from = ReadFrom::Api;
        },
        &[],
    );
    check(
        |facts| engine(facts).driver = "none".to_owned(),
        &[("logs", CheckStatus::Warn, "keep no log", "json-file")],
    );
}

/// A mistyped name was "ok, 0 running containers to be captured".
#[test]
fn lists_that_select_no_container_are_told() {
    let running = |count, others, no_log: &[&str]| {
        let no_log = no_log.iter().map(|name| (*name).to_owned()).collect();
        let fact = RunningFact { count, looked_at: count, others, no_log, ..RunningFact::default() };
        move |facts: &mut Facts| engine(facts).running = Some(fact)
    };
    check(running(0, 0, &[]), &[]);
    check(running(3, 2, &["quiet"]), &[]);
    check(
        running(0, 3, &[]),
        &[("containers", CheckStatus::Warn, "selects none of the containers that run (3)", "docker ps")],
    );
}

/// Nothing else reports them before the agent runs.
#[test]
fn containers_that_can_not_be_read_are_named() {
    let unread = |why: &[(&str, Unread)]| {
        let unread = why.iter().map(|(name, why)| UnreadFact { name: (*name).to_owned(), why: why.clone() });
        let unread = unread.collect();
        move |facts: &mut Facts| engine(facts).running.as_mut().unwrap().unread = unread
    };
    let line = |message, cure| ("containers", CheckStatus::Warn, message, cure);
    check(
        unread(&[("web", Unread::Missing("/c/web-json.log".into()))]),
        &[line(
            "7 running containers to be captured, 1 can't be read: web: its log /c/web-json.log is not",
            "Restart",
        )],
    );
    check(
        unread(&[("web", Unread::Driver("syslog".into()))]),
        &[line("driver syslog", "--log-driver json-file")],
    );
    check(unread(&[("web", Unread::NotAFile("local".into()))]), &[line("driver local", "read_from: auto")]);
    check(
        unread(&[("web", Unread::Refused("/c/web".into(), "Permission denied".into()))]),
        &[line("/c/web: Permission denied", "CAP_DAC_READ_SEARCH")],
    );
    let many: Vec<(&str, Unread)> = vec![("a", Unread::Driver("syslog".into())); 200];
    check(unread(&many), &[line("200 can't be read: a: its", "--log-driver")]);
    check(unread(&many), &[line("; and 195 more", "exclude_names")]);
    // A driver that somebody chose is mentioned, and is no fault.
    let mut facts = well();
    let running = engine(&mut facts).running.as_mut().unwrap();
    (running.no_log, running.looked_at) = (vec!["quiet".to_owned()], 6);
    let lines = judge(&facts);
    let line = lines.iter().find(|line| line.check == "containers").unwrap();
    assert_eq!(line.status, CheckStatus::Ok, "{line:?}");
    for words in ["no log of 1 container with", "driver none: quiet", "only time to check 6"] {
        assert!(line.message.contains(words), "{line:?}");
    }
}

/// A cure for a systemd unit does not help in a container.
#[test]
fn in_a_container_cures_are_options_of_its_start() {
    let contained = |own_pids, change: fn(&mut Facts)| {
        move |facts: &mut Facts| {
            facts.container = Some(ContainerFact { own_pids });
            change(facts);
        }
    };
    let line = |check, cure| (check, CheckStatus::Warn, "", cure);
    check(
        contained(true, |facts| facts.witness.tier = Tier::Procfs),
        &[line("witness", "--pid host (pid: host in Compose)")],
    );
    check(
        contained(false, |facts| facts.witness.tier = Tier::Procfs),
        &[line("witness", "Only another kernel helps")],
    );
    check(
        contained(true, |facts| {
            facts.witness.tier = Tier::Procfs;
            facts.capabilities = CapabilitySet::empty();
        }),
        &[
            line("capabilities", "--cap-add DAC_READ_SEARCH --cap-add BPF --cap-add PERFMON"),
            line("witness", "--pid host"),
        ],
    );
    let docker = |denied| {
        move |facts: &mut Facts| {
            facts.container = Some(ContainerFact { own_pids: true });
            facts.wanted.as_mut().unwrap().docker.as_mut().unwrap().answer = Err(refused("no", denied));
        }
    };
    check(docker(true), &[line("docker", "--group-add")]);
    check(docker(false), &[line("docker", "-v /var/run/docker.sock")]);
    check(
        contained(false, |facts| engine(facts).logs_readable = Err(refused("no", true))),
        &[line("logs", "--cap-add DAC_READ_SEARCH")],
    );
    check(contained(false, |facts| facts.limits.files = Some(200)), &[line("files", "--ulimit nofile")]);
    check(
        contained(false, |facts| {
            facts.release = "5.10.0-30".to_owned();
            facts.limits.locked_bytes = Some(64 << 10);
        }),
        &[line("locked_memory", "--ulimit memlock")],
    );
}

#[test]
fn rights_that_are_missing() {
    check(
        |facts| facts.capabilities = CapabilitySet::BPF | CapabilitySet::PERFMON,
        &[(
            "capabilities",
            CheckStatus::Warn,
            "CAP_DAC_READ_SEARCH to read",
            "AmbientCapabilities=CAP_DAC_READ_SEARCH",
        )],
    );
    check(
        |facts| facts.capabilities = CapabilitySet::DAC_READ_SEARCH | CapabilitySet::BPF,
        &[("capabilities", CheckStatus::Warn, "CAP_PERFMON for", "AmbientCapabilities=CAP_PERFMON;")],
    );
    // Capabilities that root has instead.
    check(|facts| facts.capabilities = CapabilitySet::DAC_OVERRIDE | CapabilitySet::SYS_ADMIN, &[]);
}

#[test]
fn a_witness_that_sees_less() {
    let lower = |facts: &mut Facts| {
        facts.witness.tier = Tier::Tracepoint;
        facts.witness.refused =
            vec![(Tier::Tracing, "EPERM".to_owned()), (Tier::Kprobe, "no such function".to_owned())];
    };
    check(
        lower,
        &[("witness", CheckStatus::Warn, "Not tracing: EPERM. Not kprobe: no such", "another kernel")],
    );
    check(
        |facts| {
            lower(facts);
            facts.has_btf = false;
        },
        &[("btf", CheckStatus::Warn, "", ""), ("witness", CheckStatus::Warn, "", "with BTF")],
    );
    check(
        |facts| {
            facts.witness.tier = Tier::Procfs;
            facts.capabilities = CapabilitySet::DAC_READ_SEARCH;
        },
        &[
            ("capabilities", CheckStatus::Warn, "CAP_BPF", ""),
            ("witness", CheckStatus::Warn, "procfs", "capabilities named above"),
        ],
    );
    check(|facts| facts.witness.tier = Tier::Kprobe, &[]);
}

#[test]
fn limits_that_are_too_low() {
    // 459, and two for each of seven containers.
    check(|facts| facts.limits.files = Some(473), &[]);
    check(
        |facts| facts.limits.files = Some(472),
        &[("files", CheckStatus::Warn, "473 may be needed", "LimitNOFILE")],
    );
    check(|facts| facts.limits.files = Some(96), &[("files", CheckStatus::Warn, "96 open", "LimitNOFILE")]);
    check(
        |facts| facts.limits.files = Some(95),
        &[("files", CheckStatus::Fail(Exit::Unavailable), "the agent itself needs 96", "LimitNOFILE")],
    );
    let old = |facts: &mut Facts| {
        facts.release = "5.10.0-30".to_owned();
        facts.limits.locked_bytes = Some(64 << 10);
    };
    check(old, &[("locked_memory", CheckStatus::Warn, "64.0 KiB", "LimitMEMLOCK")]);
    check(|facts| facts.limits.locked_bytes = Some(64 << 10), &[]);
    // A kernel of this century refused the ring, and the limit was called enough.
    let why = "io_uring_setup failed: the locked-memory limit is too small for the ring";
    check(
        |facts| {
            facts.release = "6.18.44".to_owned();
            facts.limits.locked_bytes = Some(64 << 10);
            facts.ring = Some((why.to_owned(), "Raise it".to_owned()));
            facts.lacks_locked_memory = true;
        },
        &[
            ("io_uring", CheckStatus::Fail(Exit::Unavailable), why, "Raise it"),
            (
                "locked_memory",
                CheckStatus::Warn,
                "64.0 KiB of locked memory; this kernel charges the ring",
                "LimitMEMLOCK",
            ),
        ],
    );
    let full = ("inotify", CheckStatus::Warn, "128 of 128", "max_user_instances");
    check(|facts| facts.limits.inotify_instances = Some((128, 128)), &[full]);
    let full = ("inotify", CheckStatus::Warn, "of 1000 watches", "max_user_watches");
    check(|facts| facts.limits.inotify_watches = Some((1000, 950)), &[full]);
    // The advice is more than what there is.
    for (instances, watches) in [(128, 8_192), (1024, 1_048_576), (2048, 2_000_000)] {
        let lines = amiss(|facts| {
            facts.limits.inotify_instances = Some((instances, instances));
            facts.limits.inotify_watches = Some((watches, watches));
        });
        let cure = lines[0].cure.clone().expect("a cure");
        let advised = |key: &str| -> u64 {
            let behind = cure.split_once(key).expect("the key").1;
            let number: String = behind.chars().take_while(char::is_ascii_digit).collect();
            number.parse().expect("a number")
        };
        assert!(advised("max_user_instances=") > instances, "{cure}");
        assert!(advised("max_user_watches=") > watches, "{cure}");
    }
    check(|facts| facts.limits.inotify_watches = None, &[("inotify", CheckStatus::Warn, "", "/proc")]);
}

/// A service manager must get the exit code of `run`, which reads the config first.
#[test]
fn the_first_that_fails_says_how_run_would_end() {
    let mut facts = well();
    facts.wanted.as_mut().unwrap().directories[0].state =
        DirectoryState::Missing { place: "/".into(), writable: false, free_bytes: 0, may_hang: None };
    assert_eq!(exit(&judge(&facts)), Exit::NoPermission);
    facts.ring = Some(("no".to_owned(), "yes".to_owned()));
    assert_eq!(exit(&judge(&facts)), Exit::Unavailable);
    facts.config = ConfigFact::Bad("no".to_owned());
    facts.wanted = None;
    assert_eq!(exit(&judge(&facts)), Exit::Config);
}

#[test]
fn what_run_could_not_write_or_make_fails() {
    check(
        |facts| {
            facts.wanted.as_mut().unwrap().directories[0].state =
                DirectoryState::Holds { file: "/data/lock".into() };
        },
        &[("data_dir", NO_PERMISSION, "/data/lock: this user can't write it", "chown -R")],
    );
    let socket =
        |facts: &mut Facts| facts.wanted.as_mut().unwrap().socket = Some("/run/x is not a directory".into());
    check(socket, &[("admin", UNAVAILABLE, "admin.socket: /run/x", "admin.socket")]);
    check(
        |facts| {
            socket(facts);
            facts.wanted.as_mut().unwrap().running = Some(7);
        },
        &[],
    );
}

#[test]
fn every_engine_skips_lines_of_the_driver_local() {
    let with = |version: &'static str| {
        move |facts: &mut Facts| {
            let engine = engine(facts);
            engine.version = version.to_owned();
            engine.running.as_mut().unwrap().local = vec!["web".to_owned()];
        }
    };
    let words = ("containers", CheckStatus::Warn, "1 container with the driver local: a follow", "json-file");
    check(with("20.10.24"), &[words]);
    check(with("28.5.2"), &[words]);
    let both = amiss(|facts| {
        with("20.10.24")(facts);
        let unread = UnreadFact { name: "db".to_owned(), why: Unread::Driver("gelf".to_owned()) };
        engine(facts).running.as_mut().unwrap().unread = vec![unread];
    });
    let said = &both[0].message;
    assert!(
        said.contains("1 can't be read: db") && said.contains("skips what was rotated meanwhile"),
        "{said}"
    );
    assert!(!said.contains("  "), "{said}");
}

/// A container printed 200,000 lines and 78,674 were in its log, and nothing said that Docker had dropped the rest.
#[test]
fn containers_whose_lines_docker_may_drop_are_named() {
    let may_drop = |facts: &mut Facts| {
        engine(facts).running.as_mut().unwrap().may_drop = vec!["web".to_owned()];
    };
    let words = (
        "containers",
        CheckStatus::Warn,
        "1 container with the log option mode=non-blocking: Docker drops lines",
        "mode=blocking",
    );
    check(may_drop, &[words]);
}
