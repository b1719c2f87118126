//! Arguments as people type them: what they mean, what is refused, and which config is used.

use super::*;

/// Runs the parser as main does: the result, standard output, standard error.
fn run(arguments: &str) -> (Result<Cli, Exit>, String, String) {
    let (mut out, mut err) = (Vec::new(), Vec::new());
    let words = std::iter::once("capturer").chain(arguments.split_whitespace());
    let result = parse(words, &mut out, &mut err);
    (result, String::from_utf8(out).expect("UTF-8"), String::from_utf8(err).expect("UTF-8"))
}

fn command(arguments: &str) -> Command {
    run(arguments).0.unwrap_or_else(|exit| panic!("{arguments}: {exit:?}")).command
}

#[test]
fn the_arguments_are_consistent() {
    Cli::command().debug_assert();
}

#[test]
fn commands() {
    let Command::Run(args) = command("run -c /a.yaml --set log.level=debug --set a.b=c=d") else { panic!() };
    assert_eq!(args.config.as_deref(), Some(Path::new("/a.yaml")));
    let sets: Vec<(&str, &str)> = args.set.iter().map(|set| (&*set.key, set.value.as_str())).collect();
    assert_eq!(sets, [("log.level", "debug"), ("a.b", "c=d")]);
    let Command::Quickstart(args) = command("quickstart --seconds 3 --admin [::1]:0") else { panic!() };
    assert_eq!((args.seconds, args.directory.as_path()), (Some(3), Path::new("./captured")));
    assert!(args.admin.listen.is_some());
    let Command::Positions(args) = command("positions --json") else { panic!() };
    assert!(args.json && args.config.config.is_none());
    let Command::Doctor(args) = command("doctor -c x.yaml --json") else { panic!() };
    assert!(args.json && args.config.config.is_some());
    assert!(matches!(command("check --config=x.yaml"), Command::Check(_)));
    assert!(matches!(command("completion zsh"), Command::Completion { shell: Shell::Zsh }));
}

#[test]
fn wrong_usage_is_64_and_says_why() {
    for arguments in
        ["", "fly", "run --set log.level", "run --set =x", "run -x", "completion tcsh", "run a b"]
    {
        let (result, out, err) = run(arguments);
        assert_eq!(result.err(), Some(Exit::Usage), "{arguments}");
        assert!(out.is_empty() && !err.is_empty(), "{arguments}");
    }
    assert!(run("chekc").2.contains("'check'"), "a suggestion");
    assert!(run("top --admin x").2.contains("the IP address and port that the agent listens on"));
    assert!(run("top --admin https://127.0.0.1:1").2.contains("top and tap do not speak TLS"));
    for good in ["127.0.0.1:8001", "localhost:8001", "http://127.0.0.1:8001/", "[::1]:8001"] {
        assert!(matches!(command(&format!("tap --admin {good}")), Command::Tap(_)), "{good}");
    }
    assert!(run("quickstart --admin x").2.contains("an IP address with a port"));
    assert!(run("quickstart --socket tcp://x").2.contains("tcp:// is not supported"));
}

/// Help is the first thing a newcomer reads.
#[test]
fn every_help_works() {
    let (result, out, err) = run("--help");
    assert_eq!((result.err(), err.as_str()), (Some(Exit::Ok), ""));
    assert!(out.starts_with(ABOUT), "{out}");
    for line in [
        "  run           Run the agent until SIGTERM or SIGINT",
        "  check         Check the config and say what would run; changes nothing",
        "  doctor        Check whether the agent can run on this machine, and what to fix; changes nothing",
        "  quickstart    Capture into a directory here and now, with a live table",
        "  tap           Show records of a running agent as they are delivered",
        "  top           Show each stream of a running agent: what it is doing, and its lines per second",
        "  positions     Show how far each container and file was delivered",
        "  dead-letters  Look at lines that Loki refused, send them again, or throw them away",
        "  completion    Print a completion script for a shell",
        "  capturer run -c config.yaml              run until SIGTERM",
        "  78  the config is wrong",
    ] {
        assert!(out.lines().any(|found| found == line), "{line}\n{out}");
    }
    for subcommand in Cli::command().get_subcommands() {
        let (result, out, _) = run(&format!("{} --help", subcommand.get_name()));
        assert_eq!(result.err(), Some(Exit::Ok));
        assert!(out.contains("Usage: capturer"), "{out}");
    }
    let run_help = run("run --help").1;
    assert!(run_help.contains("-c, --config <FILE>") && run_help.contains("--set <KEY=VALUE>"), "{run_help}");
    assert!(run("--version").1.starts_with("capturer "));
}

#[test]
fn completions_name_every_command() {
    for shell in [Shell::Bash, Shell::Zsh, Shell::Fish] {
        let mut script = Vec::new();
        assert_eq!(completion(shell, &mut script), Exit::Ok);
        assert!(String::from_utf8(script).expect("UTF-8").contains("quickstart"), "{shell}");
    }
}

#[test]
fn where_the_config_comes_from() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let default = directory.path().join("config.yaml");
    let load = |arguments: &ConfigArgs| load_from(arguments, &default, &Outside::real());
    let (settings, origin) = load(&ConfigArgs::default()).expect("defaults");
    assert_eq!((settings, origin.as_str()), (Settings::default(), "built-in defaults"));
    std::fs::write(&default, "data_dir: /default\n").expect("write");
    assert_eq!(load(&ConfigArgs::default()).expect("default file").0.data_dir, Path::new("/default"));
    let other = directory.path().join("other.yaml");
    let named = ConfigArgs { config: Some(other.clone()), set: Vec::new() };
    assert_eq!(Exit::from(&load(&named).expect_err("missing")), Exit::Config);
    std::fs::write(&other, "data_dir: /other\n").expect("write");
    let (settings, origin) = load(&named).expect("named file");
    assert_eq!((settings.data_dir.as_path(), origin), (Path::new("/other"), other.display().to_string()));
}

#[test]
fn check_answers_with_a_summary_or_the_problems() {
    let directory = tempfile::tempdir().expect("temporary directory");
    let path = directory.path().join("c.yaml");
    let config = ConfigArgs { config: Some(path.clone()), set: Vec::new() };
    let arguments = CheckArgs { config, online: false };
    let never = |_: &Settings, _: &mut dyn Write| -> Exit { panic!("not asked for") };
    let (mut out, mut err) = (Vec::new(), Vec::new());
    std::fs::write(&path, "admin: {listen: 1}\n").expect("write");
    let none = |_: &Settings, _: &mut dyn Write| Ok(());
    let good = |_: &Settings| Vec::new();
    assert_eq!(check(&arguments, good, none, never, &mut out, &mut err), Exit::Config);
    assert!(out.is_empty());
    assert!(String::from_utf8(err).expect("UTF-8").contains("c.yaml:1:17: admin.listen: expected"));
    std::fs::write(&path, "admin: {listen: \"\"}\n").expect("write");
    assert_eq!(check(&arguments, good, none, never, &mut out, &mut Vec::new()), Exit::Ok);
    assert!(String::from_utf8(out).expect("UTF-8").contains("c.yaml. It would run:\n  containers"));
}

/// The quickstart is for a first look: it must leave nothing elsewhere.
#[test]
fn quickstart_writes_beneath_its_directory() {
    let words = "quickstart --directory /tmp/x --socket unix:///tmp/docker.sock";
    let Command::Quickstart(args) = command(words) else { panic!() };
    let settings = quickstart_settings(&args);
    assert_eq!(settings.container_monitor.socket_path, Path::new("/tmp/docker.sock"));
    assert!(settings.data_dir.starts_with("/tmp/x"));
    assert!(settings.sinks.local_file.is_some_and(|sink| sink.directory.starts_with("/tmp/x")));
}
