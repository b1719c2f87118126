//! Traces behind lines that are none of theirs.
//!
//! Marked as in multiline_tests.rs: `|` begins a group, `+` continues it, `»` is a tab, `·` a blank at a line's end.

use super::{MultilinePreset, check, of_preset, preset};

/// A head, and the rest of its trace.
const CRASHES: [&str; 14] = [
    "java: Exception in thread \"main\" java.lang.Error: x\n+»at a.B.c(B.java:1)\n",
    "java: java.lang.IllegalStateException: x\n+»at a.B.c(B.java:1)\n",
    "java: com.a.MyFailure: x\n+»at a.B.c(B.java:1)\n",
    "python: Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n+ConnectionError: db down\n",
    "python: concurrent.futures.process._RemoteTraceback: \n+\"\"\"\n+Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n+KeyError: 1\n",
    "go: goroutine 1 [running]:\n+main.main()\n+»/a.go:1 +0x1\n",
    "node: Error: x\n+    at f (/a.js:1:1)\n",
    "node: OutOfStock: 17\n+    at f (/a.js:1:1)\n",
    "dotnet: System.Exception: x\n+   at P.Main()\n",
    "dotnet: Shop.OrderFailed: x\n+   at P.Main()\n",
    "ruby: /a.rb:5:in `f': x (RuntimeError)\n+»from /a.rb:9:in `<main>'\n",
    "ruby: Shop::OutOfStock: 17\n+app/order.rb:12:in `pay'\n",
    "php: Shop\\OutOfStock: no stock in /srv/order.php:12\n+Stack trace:\n+#0 {main}\n",
    "rust: Error: x\n+\n+Caused by:\n+    no such file\n",
];

/// Who drops info must not lose the crash behind it: a trace joins what was logged with it, which is of warn or above.
#[test]
fn crashes_behind_other_lines() {
    let apart = [
        "INFO:root:connecting to db",
        "2026-11-22 10:00:00 DEBUG shop.Order - started",
        "time=x level=notice msg=a",
        "not a level",
        "{\"level\":\"INFO\",\"msg\":\"connecting\"}",
        "{ \"level\": \"ERROR\", \"msg\": \"a whole record\" }",
    ];
    let joined = ["ERROR:root:order failed", "2026-11-22 10:00:00 WARN shop.Order - retry", "[critical ] x"];
    for crash in CRASHES {
        let (name, of, crash) = of_preset(crash);
        for before in apart {
            println!("{name}: {before}, then {crash}");
            check(&preset(of), &format!("|{before}\n|{crash}|next\n"));
        }
        for before in joined {
            println!("{name}: {before}, with {crash}");
            check(&preset(of), &format!("|{before}\n+{crash}|next\n"));
        }
    }
    // With an empty line between.
    check(
        &preset(MultilinePreset::Java),
        "|INFO a\n|\n|java.lang.Error: x\n+»at a.B.c(B.java:1)\n|WARN a\n+\n+java.lang.Error: x\n+»at a.B.c(B.java:1)\n",
    );
    // Frames without a head are those of the line before them, and so are causes.
    check(
        &preset(MultilinePreset::Java),
        "|INFO a failed: java.lang.Error: x\n+»at a.B.c(B.java:1)\n|next\n",
    );
    check(&preset(MultilinePreset::Ruby), "|INFO a\n+app/order.rb:12:in `pay'\n|next\n");
    check(
        &preset(MultilinePreset::Php),
        "|a.INFO: x {\"exception\":\"y\n+[stacktrace]\n+#0 {main}\n+\"}\n|next\n",
    );
    check(&preset(MultilinePreset::Rust), "|INFO a: x\n+\n+Caused by:\n+    no such file\n|next\n");
}

/// Behind a JSON object comes a record of its own, whatever its text names.
#[test]
fn objects_are_whole() {
    let object = "{\"level\":\"error\",\"msg\":\"panic: x, Fatal error: y, Uncaught z\"}";
    for (name, of) in MultilinePreset::NAMED {
        println!("{name}");
        check(&preset(of), &format!("|{object}\n|{object}\n|\n|next\n"));
    }
    check(&preset(MultilinePreset::Go), &format!("|{object}\n|\n|goroutine 1 [running]:\n+main.main()\n"));
    check(&preset(MultilinePreset::Php), &format!("|{object}\n|Stack trace:\n|#0 {{main}}\n"));
    let long = format!("{{\"level\":\"ERROR\",\"msg\":\"{}\"}}", "x".repeat(5000));
    check(&preset(MultilinePreset::Java), &format!("|{long}\n|java.lang.Error: x\n+»at a.B.c(B.java:1)\n"));
}
