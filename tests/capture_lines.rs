//! Lines of every size and shape, byte for byte, by file and over the API.

use std::fs;
use std::os::unix::fs::PermissionsExt as _;

use anyhow::{Context as _, Result};
use capturer_tests::agent::{Home, assert_same_lines};
use capturer_tests::engine::{Engine, EngineVersion, RunSpec};
use capturer_tests::scene::{Reading, assert_printed, config};
use capturer_tests::{both_engines, one_engine};

both_engines! {
    odd_lines_by_api => |version| odd_lines(version, Reading::API);
    a_terminal_by_api => |version| terminal(version, Reading::API);
}

one_engine! { V28_5:
    odd_lines_by_file => |version| odd_lines(version, Reading::FILE);
    a_terminal_by_file => |version| terminal(version, Reading::FILE);
}

/// What the container prints, by channel. Each is written to a file that the container cats.
fn odd_bytes() -> (Vec<u8>, Vec<u8>) {
    let mut out = Vec::new();
    let mut line = |bytes: &[u8]| {
        out.extend_from_slice(bytes);
        out.push(b'\n');
    };
    line(b"a");
    line(b"");
    line(b"");
    for len in [1, 16 * 1024 - 1, 16 * 1024, 16 * 1024 + 1, 2 * 16 * 1024, 100 * 1024, 1024 * 1024] {
        let text: Vec<u8> = (0..len).map(|at| b'a' + (at % 26) as u8).collect();
        line(&text);
    }
    line("é ß € ✓ 𝄞 \u{10ffff} \u{2028}\u{2029}\u{feff}".as_bytes());
    line(b"tab\tquote\" backslash\\ slash/ <tag> & \\n \\u0041 {\"log\":\"x\"}");
    line(b"bell\x07 escape\x1b[31m del\x7f cr\rmiddle nul\x00end");
    line(b"  leading and trailing blanks  ");
    line("2026-11-22T00:52:48.162820305Z looks like a time".as_bytes());
    (out, b"error one\n\nerror \"two\"\n".to_vec())
}

/// Ends without a newline: its last line must come all the same.
const LAST: &[u8] = b"no final newline";

fn odd_lines(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, reading))?;
    let (out, err) = odd_bytes();
    let shared = home.path().join("shared");
    fs::create_dir(&shared)?;
    fs::write(shared.join("out"), [&out[..], LAST].concat())?;
    fs::write(shared.join("err"), &err)?;
    fs::set_permissions(&shared, fs::Permissions::from_mode(0o755))?;
    let mount = format!("--volume={}:/shared:ro", shared.display());
    let run = |name: &str, script: &str| engine.run(&RunSpec::sh(script).name(name).argument(&mount));
    run("odd", "cat /shared/err >&2; cat /shared/out")?;
    // Open lines on one channel while the other goes on, and a second run after a line that was left open.
    run(
        "interleaved",
        "head -c 40000 /shared/out | tr '\\n' x; for i in 1 2 3; do echo e$i >&2; done; sleep 1; echo; echo end",
    )?;
    run("reopened", "head -c 20000 /dev/zero | tr '\\0' z; exit 0")?;
    for name in ["odd", "interleaved", "reopened"] {
        engine.wait(name)?;
    }
    engine.docker(&["start", "reopened"])?;
    engine.wait("reopened")?;

    assert_printed(&home, "odd", &[&out[..], LAST, b"\n"].concat(), &err)?;
    let expected: Vec<u8> =
        out[..40_000].iter().map(|byte| if *byte == b'\n' { b'x' } else { *byte }).collect();
    assert_printed(&home, "interleaved", &[&expected[..], b"\nend\n"].concat(), b"e1\ne2\ne3\n")?;
    let run = [vec![b'z'; 20_000], b"\n".to_vec()].concat();
    assert_printed(&home, "reopened", &[run.clone(), run].concat(), b"")?;
    invalid_utf8(&home, &engine)?;
    agent.stop()
}

/// Bytes that are not UTF-8 become U+FFFD: by Docker in its file, by us over the API of an Engine that keeps them.
fn invalid_utf8(home: &Home, engine: &Engine) -> Result<()> {
    engine.run(&RunSpec::sh("printf 'a\\377b\\n\\342\\202\\n\\300\\200\\n'").name("invalid"))?;
    engine.wait("invalid")?;
    assert_printed(home, "invalid", "a\u{fffd}b\n\u{fffd}\u{fffd}\n\u{fffd}\u{fffd}\n".as_bytes(), b"")
}

fn terminal(version: EngineVersion, reading: Reading) -> Result<()> {
    let engine = Engine::start(version)?;
    let home = Home::new()?;
    let agent = home.start(&config(&home, &engine, reading))?;
    let script = "for i in $(seq 500); do echo line $i; echo other $i >&2; done; \
                  head -c 40000 /dev/zero | tr '\\0' t; echo; printf 'prompt: '";
    engine.run(&RunSpec::sh(script).name("terminal").tty())?;
    engine.wait("terminal")?;
    let logs = engine.logs("terminal")?;
    // A terminal ends lines with CRLF. The carriage return is no part of them.
    let text = String::from_utf8(logs.stdout).context("what was printed")?;
    let mut expected = text.replace("\r\n", "\n").into_bytes();
    expected.push(b'\n');
    assert_printed(&home, "terminal", &expected, b"")?;
    let text = String::from_utf8(expected).context("what was printed")?;
    assert_same_lines(
        "what docker logs printed",
        text.lines().next().unwrap_or_default().as_bytes(),
        b"line 1",
    );
    agent.stop()
}
