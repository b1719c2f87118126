//! The config's messages as a table: the input, and exactly what the user sees. Also, no input panics.

#[path = "shipped_tests.rs"]
mod shipped;

use super::*;
use shipped::shipped;

const NOTHING: Outside = Outside { variable: &variable, file: &file };

fn variable(name: &str) -> Option<String> {
    match name {
        "PORT" => Some("9009".to_owned()),
        "SECRET" => Some("hunter2{".to_owned()),
        _ => None,
    }
}

fn file(path: &Path) -> Result<String, String> {
    if path == Path::new("/run/level") { Ok("debug\n".to_owned()) } else { Err("No such file".to_owned()) }
}

fn set(argument: &str) -> Override {
    let (key, value) = argument.split_once('=').expect("key=value");
    Override { key: key.into(), value: value.to_owned() }
}

/// The settings that a good config gives.
fn good(text: &str) -> Settings {
    parse("c.yaml", text, &[], &NOTHING).unwrap_or_else(|error| panic!("{text}\n{error}"))
}

/// A bad config, and everything reported about it.
fn check(text: &str, expected: &str) {
    check_set(text, &[], expected);
}

fn check_set(text: &str, arguments: &[&str], expected: &str) {
    let overrides: Vec<Override> = arguments.iter().map(|argument| set(argument)).collect();
    let error = parse("c.yaml", text, &overrides, &NOTHING).expect_err(text);
    assert_eq!(error.to_string(), expected, "\n{text}");
}

/// What the message adds where the whole file is no section.
const AT_THE_TOP: &str = "; its keys are data_dir, shutdown_timeout, privileges, admin, log, limits, …";

#[test]
fn empty_configs_are_the_defaults() {
    for text in
        ["", "\n# only a comment\n", "---\n", "{}", "\u{feff}", "admin:\nsinks:\n  local_file:\n", "null"]
    {
        assert_eq!(good(text), Settings::default(), "{text:?}");
    }
}

#[test]
fn values_are_taken() {
    let settings = good(
        "data_dir: /data\nadmin: {listen: ''}\nlog: {level: '${file:/run/level}', format: json}\n\
         limits: {line_bytes_max: 64KiB, buffer_bytes_max: 1GiB}\n\
         container_monitor:\n  socket_path: /run/docker.sock\n  read_from: api\n  include_names: [web-*, '123']\n  \
         include_labels: {com.example.team: a*}\n  record_labels: []\n  stream_rotation: {interval: 1m}\n\
         file_monitor:\n  files:\n  - paths: [/var/log/*.log]\n    format: raw\n    labels: {port: \"${PORT}\"}\n\
         sinks: {local_file: {enabled: false}, stdout: {enabled: true}}\n",
    );
    assert_eq!(settings.data_dir, Path::new("/data"));
    assert_eq!(settings.admin.listen, None);
    assert_eq!((settings.log.level, settings.log.format), (LogLevel::Debug, LogFormat::Json));
    assert_eq!((settings.line_bytes_max, settings.buffer_bytes_max), (64 << 10, 1 << 30));
    assert_eq!(settings.container_monitor.socket_path, Path::new("/run/docker.sock"));
    assert_eq!(settings.container_monitor.read_from, ReadFrom::Api);
    assert_eq!(settings.container_monitor.select.include_names.len(), 2);
    assert!(settings.container_monitor.select.include_labels["com.example.team"].matches("abc"));
    assert!(settings.container_monitor.record_labels.is_empty());
    assert_eq!(settings.container_monitor.rotation.interval, Duration::from_secs(60));
    assert_eq!(settings.file_monitor.files[0].labels["port"], "9009");
    assert_eq!((&settings.sinks.local_file, settings.sinks.stdout), (&None, true));
}

/// With 0 or nothing set, everything is read.
#[test]
fn files_are_ignored_from_the_age_that_is_set() {
    const DAY_NS: i64 = 86_400_000_000_000;
    let since = |more: &str| {
        let settings = good(&format!("file_monitor: {{files: [{{paths: [/a]{more}}}]}}"));
        settings.file_monitor.files[0].changed_since_ns(10 * DAY_NS)
    };
    assert_eq!(since(""), None);
    assert_eq!(since(", ignore_older: 0s"), None);
    assert_eq!(since(", ignore_older: 7d"), Some(3 * DAY_NS));
    assert_eq!(since(", ignore_older: 1h"), Some(10 * DAY_NS - DAY_NS / 24));
    // No file is older than 1970.
    assert_eq!(since(", ignore_older: 100d"), Some(-90 * DAY_NS));
}

#[test]
fn unknown_keys() {
    check("data_dri: /x", "c.yaml:1:1: data_dri: unknown key; did you mean data_dir?");
    check(
        "container_monitor:\n  stream_rotation:\n    intervall: 5m\n",
        "c.yaml:3:5: container_monitor.stream_rotation.intervall: unknown key; did you mean interval?",
    );
    check(
        "container_monitor: {interval: 5m}",
        "c.yaml:1:21: container_monitor.interval: unknown key; \
         did you mean container_monitor.stream_rotation.interval?",
    );
    // Another section has such a key; this one has a longer name for it, or none.
    check(
        "container_monitor: {socket: /x}",
        "c.yaml:1:21: container_monitor.socket: unknown key; did you mean socket_path?",
    );
    check(
        "admin: {level: x}",
        "c.yaml:1:9: admin.level: unknown key; did you mean log.level? Known here: listen, hosts, token, tls_cert, \
         tls_key, socket, tap, profile",
    );
    check(
        "admin: {xyz: 1}",
        "c.yaml:1:9: admin.xyz: unknown key; known here: listen, hosts, token, tls_cert, tls_key, socket, tap, profile",
    );
    check("Log: {}", "c.yaml:1:1: Log: unknown key; did you mean log?");
    check(
        "file_monitor: {files: [{paths: [/a], fromat: raw}]}",
        "c.yaml:1:38: file_monitor.files[0].fromat: unknown key; did you mean format?",
    );
    check(
        "admin: {\"a\\nc.yaml:1:1: \": 1}",
        "c.yaml:1:9: admin.\"a\\nc.yaml:1:1: \": unknown key; known here: listen, hosts, token, tls_cert, tls_key, socket, tap, profile",
    );
}

#[test]
fn wrong_values() {
    let duration = "a duration with its unit, such as 100ms, 30s, 5m or 1h30m";
    let of_rotation = "container_monitor.stream_rotation";
    check(
        "shutdown_timeout: 30",
        &format!(
            "c.yaml:1:19: shutdown_timeout: expected {duration}, found \"30\"; write 30s if seconds are meant"
        ),
    );
    check("shutdown_timeout:", &format!("c.yaml:1:17: shutdown_timeout: expected {duration}, found nothing"));
    check(
        "shutdown_timeout: [30s]",
        &format!("c.yaml:1:19: shutdown_timeout: expected {duration}, found a list"),
    );
    // A refused secret is not shown: the message goes to the log and /health.
    check(
        "admin: {token: MySecret1}",
        "c.yaml:1:16: admin.token: expected at least 16 visible ASCII characters, found 9 characters, which are not shown; \
         openssl rand -hex 16 makes one; keep it in a file: \"${file:/etc/capturer/admin-token}\"",
    );
    check("shutdown_timeout: 1ms", "c.yaml:1:19: shutdown_timeout: expected 100ms to 30days, found \"1ms\"");
    check(
        "limits:\n  line_bytes_max: 1000\n",
        "c.yaml:2:19: limits.line_bytes_max: expected a size with its unit, such as 64KiB, 100MiB or 1GB, \
         found \"1000\"; write 1000B if bytes are meant",
    );
    check(
        "limits: {line_bytes_max: 17MiB, buffer_bytes_max: 1GiB}",
        "c.yaml:1:26: limits.line_bytes_max: expected 64B to 16.0MiB, found \"17MiB\"",
    );
    check(
        "container_monitor: {enabled: yes}",
        "c.yaml:1:30: container_monitor.enabled: expected true or false, found \"yes\"; write true",
    );
    check(
        "container_monitor: {max_concurrent: 101}",
        "c.yaml:1:37: container_monitor.max_concurrent: expected 1 to 100, found \"101\"",
    );
    check(
        "container_monitor: {stream_rotation: {max_concurrent_streams: 0}}",
        &format!("c.yaml:1:63: {of_rotation}.max_concurrent_streams: expected 1 to 384, found \"0\""),
    );
    check(
        "container_monitor: {read_from: files}",
        "c.yaml:1:32: container_monitor.read_from: expected one of auto, file, api, found \"files\"; did you mean file?",
    );
    check(
        "log: {level: 7}",
        "c.yaml:1:14: log.level: expected one of error, warn, info, debug, trace, found \"7\"",
    );
    check(
        "log: debug",
        "c.yaml:1:6: log: expected a section with keys, found \"debug\"; its keys are level, format",
    );
    check(
        "container_monitor: false",
        "c.yaml:1:20: container_monitor: expected a section with keys, found \"false\"; write container_monitor: {enabled: false}",
    );
    check(
        "pipelines: [{name: x, steps: [{redact: [{pattern: a, with: b}]}]}]",
        "c.yaml:1:40: pipelines[0].steps[0].redact: expected a section with keys, found a list; write its keys without - or []: \
         presets, patterns",
    );
    check(
        "file_monitor: {files: {paths: [/a]}}",
        "c.yaml:1:23: file_monitor.files: expected a list of sections, found a section with keys; write - before its first key",
    );
    check("- a", &format!("c.yaml:1:1: expected a section with keys, found a list{AT_THE_TOP}"));
    check(
        "data_dir: /d\nsinks:\n  local_file:\n    directory: /d/",
        "c.yaml:4:16: sinks.local_file.directory: this is where the agent keeps positions and spool (data_dir), and an output \
         that has the name of such a file would be replaced by it: name another directory",
    );
    check("data_dir: ''", "c.yaml:1:11: data_dir: expected a path, found \"\"");
    check(
        "container_monitor: {include_names: web}",
        "c.yaml:1:36: container_monitor.include_names: expected a list of values, found \"web\"; write [\"web\"]",
    );
    check(
        "container_monitor: {include_names: [ok, 'a[']}",
        "c.yaml:1:41: container_monitor.include_names[1]: expected a pattern with *, ? or [a-z], found \"a[\"; \
         invalid range pattern at character 2",
    );
    check(
        "container_monitor: {exclude_labels: {com.x: [a]}}",
        "c.yaml:1:45: container_monitor.exclude_labels[\"com.x\"]: expected text, found a list",
    );
    check(
        "container_monitor: {exclude_labels: ['app=web']}",
        "c.yaml:1:37: container_monitor.exclude_labels: expected keys with values, found a list; write {app: \"VALUE\"}",
    );
}

#[test]
fn addresses_and_paths() {
    let address = "an IP address with a port, such as 127.0.0.1:8001 or [::1]:8001, or \"\" for no server";
    check(
        "admin: {listen: \":8001\"}",
        &format!(
            "c.yaml:1:17: admin.listen: expected {address}, found \":8001\"; \
             write 127.0.0.1:8001 for this host only, 0.0.0.0:8001 for every network"
        ),
    );
    check(
        "container_monitor: {socket_path: 'tcp://10.0.0.1:2375'}",
        "c.yaml:1:34: container_monitor.socket_path: expected the path of the Engine's Unix socket, such as \
         unix:///var/run/docker.sock, found \"tcp://10.0.0.1:2375\"; tcp:// is not supported: the agent runs on the \
         host whose containers it captures",
    );
    check(
        "file_monitor: {files: [{paths: [log/*.log]}]}",
        "c.yaml:1:33: file_monitor.files[0].paths[0]: expected an absolute path or pattern, such as /var/log/*.log, \
         found \"log/*.log\"",
    );
    check(
        "file_monitor: {files: [{path: [/a]}]}",
        "c.yaml:1:25: file_monitor.files[0].path: unknown key; did you mean paths?",
    );
    check(
        "file_monitor: {files: [{format: raw}]}",
        "c.yaml:1:25: file_monitor.files[0].paths: names no file to follow",
    );
    check(
        "file_monitor: {files: [{paths: []}]}",
        "c.yaml:1:32: file_monitor.files[0].paths: names no file to follow",
    );
    check(
        "sinks: {local_file: {file: '../{container_name}'}}",
        "c.yaml:1:28: sinks.local_file.file: expected a file name such as {container_name}.ndjson, \
         found \"../{container_name}\"; its parts can't be empty, . or ..",
    );
    check(
        "sinks: {local_file: {file: '{name}.log'}}",
        "c.yaml:1:28: sinks.local_file.file: expected a file name such as {container_name}.ndjson, \
         found \"{name}.log\"; {name} is unknown; there are {container_name}, {container_id}, {image}, {path} and {label:KEY}",
    );
}

#[test]
fn settings_that_contradict_each_other() {
    check(
        "limits: {line_bytes_max: 8MiB}",
        "c.yaml: limits.buffer_bytes_max: is 32.0MiB, but must be at least 33.0MiB with limits.line_bytes_max at 8.0MiB",
    );
    check(
        "container_monitor:\n  stream_rotation: {interval: 5m, idle_interval: 1m}\n",
        "c.yaml:2:50: container_monitor.stream_rotation.idle_interval: is 1m, but must be at least interval, which is 5m",
    );
    check(
        "container_monitor:\n  enabled: false\n",
        "c.yaml:2:12: container_monitor.enabled: is false and file_monitor.files is empty: there is nothing to capture",
    );
    // A file set that can't be read is no missing one.
    let broken =
        parse("c.yaml", "container_monitor: {enabled: false}\nfile_monitor: {files: x}\n", &[], &NOTHING);
    let told = broken.err().map(|error| error.to_string()).unwrap_or_default();
    assert!(told.contains("file_monitor.files") && !told.contains("nothing to capture"), "{told}");
    check(
        "sinks: {local_file: {enabled: false}}",
        "c.yaml:1:8: sinks: none is enabled: set enabled of sinks.local_file, sinks.loki or sinks.stdout to true",
    );
    // What the sink writes is left out when the pattern is matched (shell/files/own.rs).
    let sink = "sinks: {local_file: {directory: /var/log/capturer}}\n";
    good(&format!("{sink}file_monitor: {{files: [{{paths: ['/var/log/**']}}]}}"));
}

/// What people paste first, and what they remember of a name.
#[test]
fn keys_of_other_agents_and_parts_of_names() {
    check(
        "scrape_configs: []",
        "c.yaml:1:1: scrape_configs: unknown key; Promtail has it: docs/migrate.md shows what to write instead",
    );
    check("sinks: {file: {}}", "c.yaml:1:9: sinks.file: unknown key; did you mean sinks.local_file?");
}

#[test]
fn broken_yaml() {
    check(
        "a: 1\na: 2\n",
        "c.yaml:1:1: a: unknown key; known here: data_dir, shutdown_timeout, privileges, admin, log, limits, \
         remember, container_monitor, file_monitor, pipelines, sinks, resource_monitoring, metrics\n\
         c.yaml:2:1: the key \"a\" is given twice; the first is on line 1",
    );
    check(
        "log: {level: info}\ndata_dir: /a\nlog: {}\n",
        "c.yaml:3:1: the key \"log\" is given twice; the first is on line 1",
    );
    check("data_dir: !x /a", "c.yaml:1:11: tags (!…) are not supported here");
    check("a: &x b\nc: *x\n", "c.yaml:2:4: aliases (*…) are not supported here; write the value out");
    check("data_dir: /a\n---\ndata_dir: /b\n", "c.yaml:2:1: a second document begins here; a config has one");
    check("? [a]\n: b\n", "c.yaml:1:3: a key must be plain text");
    check(&format!("a: {}", "[".repeat(40)), "c.yaml:1:20: nested deeper than 16 levels");
    let unclosed = parse("c.yaml", "log: {level: info\n", &[], &NOTHING).expect_err("no closing brace");
    assert!(unclosed.to_string().starts_with("c.yaml:2:1: not valid YAML: "), "{unclosed}");
    for (text, cure) in [
        ("sinks:\n\tlocal_file: {}\n", "; indent with blanks: YAML takes no tabs there"),
        ("a: {drop: {matches: \"\\d+\"}}\n", "put the value into single quotes"),
        ("a:\n  file: {name}.ndjson\n", "; if a text is meant, one that begins with { needs quotes"),
        ("a:\n  - [a-z]*.log\n", "; if a text is meant, one that begins with [ needs quotes"),
        ("a:\n  names: [*-web]\n", "; a value that begins with * needs quotes"),
        ("a:\n  - *.log\n", "; a value that begins with * needs quotes"),
        ("a:\n  - @daily\n", "; a value that begins with @ needs quotes"),
        ("a:\n  pattern: ERROR: x\n", "a value that contains a colon and a blank needs quotes"),
    ] {
        let told =
            parse("c.yaml", text, &[], &NOTHING).err().map(|error| error.to_string()).unwrap_or_default();
        assert!(told.ends_with(cure), "{text} {told}");
    }
}

/// In YAML a carriage return alone ends a line. In editors, grep and the like it does not, nor do line breaks that only
/// Unicode has; a user counts lines as those do.
#[test]
fn lines_are_those_that_editors_show() {
    check("# é\r\r\n# ä\u{2028}\u{85}\r\nLog: {}\n", "c.yaml:3:1: Log: unknown key; did you mean log?");
    check("# old\rLog: {}", "c.yaml:1:7: Log: unknown key; did you mean log?");
    check(
        "log:\r  level: info\r\n\rlog: {}\n",
        "c.yaml:2:2: the key \"log\" is given twice; the first is on line 1",
    );
    check("\r%é\r\nLog: {}", "c.yaml:2:1: not valid YAML: did not find expected <document start>");
    let unclosed = parse("c.yaml", "log: {level: info\r\r\r\n}}", &[], &NOTHING).expect_err("closed twice");
    assert!(unclosed.to_string().starts_with("c.yaml:2:2: not valid YAML: "), "{unclosed}");
}

/// The value of a placeholder may be a secret: a message shows the placeholder.
#[test]
fn substituted_values_are_never_shown() {
    let expected = "expected a whole number, but \"${SECRET}\" stands for something else";
    check(
        "metrics: {max_containers: \"${SECRET}\"}",
        &format!("c.yaml:1:27: metrics.max_containers: {expected}"),
    );
    check(
        "data_dir: ${NOPE}",
        "c.yaml:1:11: data_dir: the environment variable NOPE is not set (or not UTF-8); if no variable is meant, write $${NOPE}",
    );
    check("data_dir: ${file:/nope}", "c.yaml:1:11: data_dir: ${file:/nope}: No such file");
    let parsers = ["data_dir", "shutdown_timeout", "admin.listen", "log.level", "limits.line_bytes_max"];
    let more = ["container_monitor.socket_path", "container_monitor.enabled", "sinks.local_file.file"];
    for key in parsers.iter().chain(&more) {
        let set = set(&format!("{key}=${{SECRET}}"));
        if let Err(error) = parse("c.yaml", "", &[set], &NOTHING) {
            assert!(!error.to_string().contains("hunter"), "{error}");
        }
    }
}

#[test]
fn overrides() {
    let overrides = ["admin.listen=''", "container_monitor={max_concurrent: 3}", "log.level=warn"].map(set);
    let settings = parse("c.yaml", "log: {level: trace, format: json}", &overrides, &NOTHING).expect("good");
    assert_eq!(settings.admin.listen, None);
    assert_eq!(settings.container_monitor.max_concurrent, 3);
    assert_eq!((settings.log.level, settings.log.format), (LogLevel::Warn, LogFormat::Json));
    check_set("", &["log.levle=info"], "--set log.levle: unknown key; did you mean level?");
    check_set(
        "log: {level: info}",
        &["log.level="],
        "--set log.level: expected one of error, warn, info, debug, trace, found nothing",
    );
    check_set("", &["log={levle: info}"], "--set log: log.levle: unknown key; did you mean level?");
    check_set(
        "",
        &["metrics.max_containers=x"],
        "--set metrics.max_containers: expected a whole number, found \"x\"",
    );
    check_set(
        "data_dir: /a",
        &["data_dir.x=1"],
        "--set data_dir.x: data_dir is a single value, not a section",
    );
    check_set(
        "",
        &["log..level=info"],
        "--set log..level: the key has an empty part; write it as section.key",
    );
    check_set(
        "file_monitor: {files: [{paths: [/a]}]}",
        &["file_monitor.files.0.format=raw"],
        "--set file_monitor.files.0.format: file_monitor.files is a list; set it as a whole",
    );
    check_set(
        "- a",
        &["log.level=info"],
        &format!("c.yaml:1:1: expected a section with keys, found a list{AT_THE_TOP}"),
    );
}

/// Nobody should have to fix one mistake and start again for the next.
#[test]
fn all_problems_are_reported_in_order() {
    check_set(
        "sinks:\n  local_file: {enabled: maybe}\nadmin: {port: 1}\nmetrics: {max_containers: -1}\n",
        &["log.level=loud"],
        "c.yaml:2:25: sinks.local_file.enabled: expected true or false, found \"maybe\"\n\
         c.yaml:3:9: admin.port: unknown key; known here: listen, hosts, token, tls_cert, tls_key, socket, tap, profile\n\
         c.yaml:4:27: metrics.max_containers: expected a whole number, found \"-1\"\n\
         --set log.level: expected one of error, warn, info, debug, trace, found \"loud\"",
    );
}

#[test]
fn files_that_cannot_be_read() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("c.yaml");
    let message = |path: &Path| load(Some(path), &[], &NOTHING).expect_err("unreadable").to_string();
    assert!(
        message(&path)
            .ends_with("c.yaml: the config file can't be read: No such file or directory (os error 2)")
    );
    std::fs::write(&path, b"data_dir: /a\n# \xff\n").expect("write");
    assert!(message(&path).ends_with("the config file is not UTF-8 in line 2"));
    assert!(message(Path::new("/dev/zero")).ends_with("the config file is longer than 1.0MiB"));
    assert!(message(directory.path()).contains("can't be read"));
    std::fs::write(&path, "data_dir: /a\n").expect("write");
    assert_eq!(load(Some(&path), &[], &NOTHING).expect("good").data_dir, Path::new("/a"));
    assert_eq!(load(None, &[], &NOTHING), Ok(Settings::default()));
}

/// A generator with the same numbers everywhere (splitmix64), so that a printed seed reproduces a failure.
struct Random(u64);

impl Random {
    fn below(&mut self, end: usize) -> usize {
        self.0 = self.0.wrapping_add(0x9E37_79B9_7F4A_7C15);
        let mut z = self.0;
        z = (z ^ (z >> 30)).wrapping_mul(0xBF58_476D_1CE4_E5B9);
        z = (z ^ (z >> 27)).wrapping_mul(0x94D0_49BB_1331_11EB);
        ((z ^ (z >> 31)) % end as u64) as usize
    }

    fn mutate(&mut self, bytes: &mut Vec<u8>) {
        const PIECES: [&str; 24] = [
            ":",
            "\n",
            "  ",
            "- ",
            "[",
            "]",
            "{",
            "}",
            "\"",
            "'",
            "#",
            "&a ",
            "*a",
            "!!str ",
            "|\n",
            ">-\n",
            "? ",
            "---\n",
            "...\n",
            "${",
            "$$",
            "\t",
            "%YAML 1.2\n",
            "\u{0}",
        ];
        for _ in 0..=self.below(6) {
            let at = self.below(bytes.len() + 1);
            let end = (at + self.below(20)).min(bytes.len());
            match self.below(4) {
                0 => drop(bytes.drain(at..end)),
                1 => drop(bytes.splice(at..at, PIECES[self.below(PIECES.len())].bytes())),
                2 if at < bytes.len() => bytes[at] = self.below(256) as u8,
                _ => {
                    let copy = bytes[at..end].to_vec();
                    let to = self.below(bytes.len() + 1);
                    drop(bytes.splice(to..to, copy));
                }
            }
        }
    }
}

/// People write configs by hand, so anything may be in one; the agent must answer with a message.
#[test]
fn no_input_panics() {
    let shipped = shipped("config.yaml");
    for seed in 0..3000 {
        let mut random = Random(seed);
        let mut bytes = match random.below(3) {
            0 => (0..random.below(200)).map(|_| random.below(256) as u8).collect(),
            _ => {
                let start = random.below(shipped.len());
                shipped.as_bytes()[start..(start + random.below(1500)).min(shipped.len())].to_vec()
            }
        };
        random.mutate(&mut bytes);
        let text = String::from_utf8_lossy(&bytes);
        let overrides = [Override { key: "log.level".into(), value: text.chars().take(30).collect() }];
        let result = std::panic::catch_unwind(|| {
            let _ = parse("c.yaml", &text, &overrides, &NOTHING).map_err(|error| error.to_string());
        });
        assert!(result.is_ok(), "seed {seed} panics on {text:?}");
    }
}
