//! Stack traces as the runtimes printed them (Java 17, Python 3.11, Node 20), one of Go written after its form, and what must
//! stay apart.
//!
//! `|` begins a line that begins a group, `+` one that continues it; `»` is a tab.

use super::*;

fn preset(preset: MultilinePreset) -> Multiline {
    rule(MultilineRule::Preset(preset))
}

fn rule(rule: MultilineRule) -> Multiline {
    Multiline { rule, timeout: Duration::from_secs(1), lines_max: 500, bytes_max: 1 << 18 }
}

/// Groups the lines of a marked text and compares where the groups begin.
fn check(multiline: &Multiline, marked: &str) {
    let marked = marked.replace('»', "\t");
    let (mut open, mut found) = (None, String::new());
    for line in marked.lines() {
        let text = &line.as_bytes()[1..];
        let next = open.and_then(|group| multiline.next(group, text));
        found.push(if next.is_some() { '+' } else { '|' });
        found.push_str(&line[1..]);
        found.push('\n');
        open = Some(next.unwrap_or_else(|| multiline.begin(text)));
    }
    assert_eq!(found, marked);
}

#[test]
fn java() {
    check(&preset(MultilinePreset::Java), JAVA);
}

#[test]
fn python() {
    check(&preset(MultilinePreset::Python), PYTHON);
}

#[test]
fn go() {
    check(&preset(MultilinePreset::Go), GO);
}

#[test]
fn node() {
    check(&preset(MultilinePreset::Node), NODE);
}

/// A preset must not glue lines together that are none of a trace: two records would be lost in one.
#[test]
fn other_lines_stay_apart() {
    let lines = "|one\n|\n|  indented\n|\tat\n|}\n|Caused\n|KeyError: x\n|ERROR a\n|ERROR b\n|INFO: c\n|f(x)\n|/srv/x.js\n|exit status 2\n";
    for name in [MultilinePreset::Java, MultilinePreset::Python, MultilinePreset::Go, MultilinePreset::Node] {
        check(&preset(name), lines);
    }
    check(&preset(MultilinePreset::Java), "|not a level\n|java.lang.Error: x\n+\tat A.b(A.java:1)\n");
    check(&preset(MultilinePreset::Node), "|/srv/x.js:5\n+throw e;\n|what now\n");
    check(&preset(MultilinePreset::Python), "|Traceback (most recent call last):\n+  x\n|done\n");
    check(&preset(MultilinePreset::Python), "|Traceback (most recent call last):\n|INFO two words here\n");
}

#[test]
fn patterns() {
    let new = |text: &str| Some(Pattern::new(text).expect("good"));
    let start = rule(MultilineRule::Patterns { start: new("^[0-9]{4}-"), continues: None });
    check(&start, "|head\n+x\n|2026-11-22 a\n+\n+ b\n|2026-11-22 c\n");
    let continues = rule(MultilineRule::Patterns { start: None, continues: new(r"^\s") });
    check(&continues, "|a\n+ b\n|c\n|d\n+\te\n");
    let both = rule(MultilineRule::Patterns { start: new("^ <"), continues: new(r"^\s") });
    check(&both, "|a\n+ b\n| <c\n+ d\n|e\n");
}

/// What a line of any length costs is bounded: nothing behind its first 4 KiB is looked at.
#[test]
fn long_lines() {
    let java = preset(MultilinePreset::Java);
    let mut line = b"x".repeat(MULTILINE_LOOK_BYTES);
    line.extend_from_slice(b" ERROR");
    assert_eq!(java.begin(&line), Group(State::Plain));
    assert_eq!(java.begin(b"ERROR x\r"), Group(State::Levelled));
}

const JAVA: &str = r#"|2026-11-22 10:00:00 ERROR shop.Order - order 17 failed
+java.lang.RuntimeException: order failed
+»at A.main(A.java:5)
+»at java.base/jdk.internal.reflect.NativeMethodAccessorImpl.invoke0(Native Method)
+»at java.base/jdk.internal.reflect.NativeMethodAccessorImpl.invoke(NativeMethodAccessorImpl.java:77)
+»at java.base/jdk.internal.reflect.DelegatingMethodAccessorImpl.invoke(DelegatingMethodAccessorImpl.java:43)
+»at java.base/java.lang.reflect.Method.invoke(Method.java:569)
+»at jdk.compiler/com.sun.tools.javac.launcher.Main.execute(Main.java:419)
+»at jdk.compiler/com.sun.tools.javac.launcher.Main.run(Main.java:192)
+»at jdk.compiler/com.sun.tools.javac.launcher.Main.main(Main.java:132)
+»Suppressed: java.io.IOException: closing
+»»... 8 more
+Caused by: java.lang.IllegalStateException: no stock
+»at A.inner(A.java:2)
+»at A.inner(A.java:2)
+»at A.inner(A.java:2)
+»... 8 more
|2026-11-22 10:00:01 INFO shop.Order - next
|Exception in thread "main" java.lang.IllegalStateException: no stock
+»at A.inner(A.java:2)
+»at A.inner(A.java:2)
+»at A.main(A.java:7)
"#;

const PYTHON: &str = r#"|ERROR:root:order failed
+Traceback (most recent call last):
+  File "/srv/a.py", line 7, in <module>
+    f(1)
+  File "/srv/a.py", line 5, in f
+    f(n-1)
+  File "/srv/a.py", line 4, in f
+    if n == 0: raise KeyError("sku")
+               ^^^^^^^^^^^^^^^^^^^^^
+KeyError: 'sku'
|Traceback (most recent call last):
+  File "/srv/a.py", line 12, in <module>
+    f(0)
+  File "/srv/a.py", line 4, in f
+    if n == 0: raise KeyError("sku")
+               ^^^^^^^^^^^^^^^^^^^^^
+KeyError: 'sku'
+
+The above exception was the direct cause of the following exception:
+
+Traceback (most recent call last):
+  File "/srv/a.py", line 14, in <module>
+    raise ValueError("bad order") from e
+ValueError: bad order
|next line
|  + Exception Group Traceback (most recent call last):
+  |   File "/srv/a.py", line 19, in <module>
+  |     raise ExceptionGroup("many", [ValueError(1), TypeError(2)])
+  | ExceptionGroup: many (2 sub-exceptions)
+  +-+---------------- 1 ----------------
+    | ValueError: 1
+    +---------------- 2 ----------------
+    | TypeError: 2
+    +------------------------------------
|after
|Traceback (most recent call last):
+  File "/srv/a.py", line 23, in <module>
+    f(0)
+  File "/srv/a.py", line 4, in f
+    if n == 0: raise KeyError("sku")
+               ^^^^^^^^^^^^^^^^^^^^^
+KeyError: 'sku'
"#;

const GO: &str = r#"|2026/11/22 10:00:00 ready
|panic: runtime error: index out of range [5] with length 3
+
+goroutine 1 [running]:
+main.pick(...)
+»/srv/main.go:8
+main.main()
+»/srv/main.go:12 +0x1d
+exit status 2
|2026/11/22 10:00:00 http: panic serving 127.0.0.1:4711: no stock
+goroutine 18 [running]:
+net/http.(*conn).serve.func1()
+»/usr/local/go/src/net/http/server.go:1898 +0xbe
+panic({0x6a1b20?, 0x75c0f0?})
+»/usr/local/go/src/runtime/panic.go:770 +0x132
+created by net/http.(*Server).Serve in goroutine 1
+»/usr/local/go/src/net/http/server.go:3285 +0x4b4
|2026/11/22 10:00:01 next
|panic: oh [recovered]
+»panic: oh
+[signal SIGSEGV: segmentation violation code=0x1 addr=0x0 pc=0x45]
+
+goroutine 1 [running]:
+main.main()
+»/srv/main.go:5 +0x1
+
+goroutine 6 [select]:
+main.wait(0xc000012345)
+»/srv/main.go:9 +0x1
+rax    0x0
|a line (with brackets) of text
"#;

const NODE: &str = r#"|ready
|Error: order failed
+    at Object.<anonymous> (/srv/a.js:2:15)
+    at Module._compile (node:internal/modules/cjs/loader:1521:14)
+    ... 4 lines matching cause stack trace ...
+    at node:internal/main/run_main_module:28:49 {
+  [cause]: TypeError: no stock
+      at Object.<anonymous> (/srv/a.js:2:49)
+      at Module._compile (node:internal/modules/cjs/loader:1521:14)
+      at Module._extensions..js (node:internal/modules/cjs/loader:1623:10)
+      at Module.load (node:internal/modules/cjs/loader:1266:32)
+      at Module._load (node:internal/modules/cjs/loader:1091:12)
+      at Function.executeUserEntryPoint [as runMain] (node:internal/modules/run_main:164:12)
+      at node:internal/main/run_main_module:28:49
+}
|next
|/srv/a.js:5
+throw e;
+^
+
+Error: x
+    at Object.<anonymous> (/srv/a.js:4:11)
+    at Module._compile (node:internal/modules/cjs/loader:1521:14)
+    at Module._extensions..js (node:internal/modules/cjs/loader:1623:10)
+    at Module.load (node:internal/modules/cjs/loader:1266:32)
+    at Module._load (node:internal/modules/cjs/loader:1091:12)
+    at Function.executeUserEntryPoint [as runMain] (node:internal/modules/run_main:164:12)
+    at node:internal/main/run_main_module:28:49 {
+  code: 'ENOENT'
+}
+
+Node.js v20.20.2
"#;
