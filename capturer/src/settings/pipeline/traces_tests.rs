//! Traces behind lines that are not part of them, and forms in which runtimes and libraries print traces.
//!
//! Marked as in multiline_tests.rs: `|` begins a group, `+` continues it, `»` is a tab, `·` a blank at a line's end.

use super::{MultilinePreset, check, of_preset, preset};

/// The head of a trace, and its rest.
const CRASHES: [&str; 15] = [
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
    "rust: thread 'main' panicked at src/a.rs:1:1:\n+x\n+note: run with `RUST_BACKTRACE=1` environment variable\n",
];

/// Whoever drops info must not lose the crash behind it: a trace only joins a line of level warn or above.
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
    // Frames without a head belong to the line before them, and so do causes.
    check(
        &preset(MultilinePreset::Java),
        "|INFO a failed: java.lang.Error: x\n+»at a.B.c(B.java:1)\n|next\n",
    );
    check(&preset(MultilinePreset::Ruby), "|INFO a\n+app/order.rb:12:in `pay'\n|next\n");
    check(
        &preset(MultilinePreset::Php),
        "|a.INFO: x {\"exception\":\"y\n+[stacktrace]\n+#0 {main}\n+\"}\n|next\n",
    );
    for end in ["\"} []", "\"} {\"uid\":\"1\"}", "\",\"user\":7} []"] {
        check(
            &preset(MultilinePreset::Php),
            &format!("|a.CRITICAL: x {{\"exception\":\"y\n+[stacktrace]\n+#0 {{main}}\n+{end}\n|next\n"),
        );
    }
    check(&preset(MultilinePreset::Rust), "|INFO a: x\n+\n+Caused by:\n+    no such file\n|next\n");
}

/// The line behind a JSON object is a record of its own, whatever its text says.
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

#[test]
fn python() {
    let table = [
        // pydantic 2 and 1.
        "|Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n\
         +pydantic_core._pydantic_core.ValidationError: 2 validation errors for User\n+id\n\
         +  Input should be a valid integer [type=int_parsing, input_value='x', input_type=str]\n\
         +    For further information visit https://errors.pydantic.dev/2.5/v/int_parsing\n+items.0.price\n\
         +  Field required [type=missing, input_value={}, input_type=dict]\n|next\n|and\n|  more\n",
        "|Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n\
         +pydantic.error_wrappers.ValidationError: 1 validation error for User\n+items -> 0 -> price\n\
         +  field required (type=value_error.missing)\n|INFO: next\n|  x\n",
        "|Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n\
         +a.ValidationError: 1 validation error for User\n|next\n|next\n|  x\n",
        // A message of several lines ends where the indentation does.
        "|Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n+ValueError: first\n+  second\n+  third\n\
         |next\n|  not its own\n",
        "|Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n+ValueError: first\n|second\n",
        "|Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n+ValueError: first\n\
         |           INFO     ready                      main.py:25\n",
        "|INFO:root:here\n+Stack (most recent call last):\n+  File \"/a.py\", line 1, in f\n+    g()\n|INFO:root:next\n\
         |  File \"/a.py\", line 1, in f\n+    g()\n|INFO:root:next\n",
        "|Exception in thread Thread-1 (run):\n+Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n\
         +RuntimeError: x\n|next\n",
        "|Exception ignored in: <function A.__del__ at 0x7f>\n+Traceback (most recent call last):\n\
         +  File \"/a.py\", line 3, in __del__\n+NameError: name 'x' is not defined\n\
         |Task exception was never retrieved\n\
         +future: <Task finished name='Task-2' coro=<f() done, defined at /a.py:3> exception=ValueError('x')>\n\
         +Traceback (most recent call last):\n+  File \"/a.py\", line 4, in f\n+ValueError: x\n|next\n",
        "|ERROR:asyncio:Exception in callback f()\n+handle: <Handle f() at /a.py:7>\n\
         +Traceback (most recent call last):\n+  File \"/a.py\", line 4, in f\n+ValueError: x\n|next\n",
        "|Exception ignored in: <_io.TextIOWrapper name='<stdout>' mode='w' encoding='utf-8'>\n\
         +BrokenPipeError: [Errno 32] Broken pipe\n|next\n",
        "|Fatal Python error: init_fs_encoding: failed to get the Python codec\n\
         +Python runtime state: core initialized\n+ModuleNotFoundError: No module named 'encodings'\n+\n\
         +Current thread 0x00007f00 (most recent call first):\n+<no Python frame>\n|next\n",
        "|Exception ignored in: <function A.__del__ at 0x7f>\n|next\n|Exception in thread x\n|next\n",
        "|  File \"/srv/a.py\", line 3\n+    print \"x\"\n+          ^\n\
         +SyntaxError: Missing parentheses in call to 'print'. Did you mean print(\"x\")?\n|next\n",
        // Two runs of a program that ends at once.
        "|Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n+ValueError: x\n\
         |  File \"/srv/a.py\", line 3\n+    x y\n+    ^^^\n+SyntaxError: invalid syntax\n\
         |  + Exception Group Traceback (most recent call last):\n+  | ExceptionGroup: many (1 sub-exception)\n\
         +  +-+---------------- 1 ----------------\n+    | ValueError: 1\n\
         +    +------------------------------------\n\
         |  + Exception Group Traceback (most recent call last):\n+  | ExceptionGroup: many (1 sub-exception)\n",
        "|Fatal Python error: Segmentation fault\n+\n+Thread 0x00007f01 (most recent call first):\n\
         +  File \"/a.py\", line 3 in g\n+\n+Current thread 0x00007f00 (most recent call first):\n\
         +  File \"/a.py\", line 1 in f\n+\n+Extension modules: a, b (total: 2)\n|next\n",
        "|/srv/a.py:3: DeprecationWarning: f is old, use g\n+  f()\n|next\n|/srv/a.py:3: a warning\n|  next\n",
        // structlog.
        "|2026-11-22 10:00:00 [error    ] failed                         key=1\n\
         +Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n+ValueError: x\n\
         |2026-11-22 10:00:00 [info     ] ok\n|Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n",
    ];
    table.iter().for_each(|text| check(&preset(MultilinePreset::Python), text));
}

#[test]
fn java_and_node() {
    for text in [
        // Database drivers quote the server.
        "|2026-11-22 10:00:00 ERROR x - y\n+java.sql.BatchUpdateException: Batch entry 0 insert into t\n\
         +(a) values (1) was aborted: ERROR: null value in column \"b\"\n+  Detail: Failing row contains (1, null).\n\
         +»at org.postgresql.A.b(A.java:165)\n+Caused by: org.postgresql.util.PSQLException: ERROR: null value\n\
         +  Detail: x\n+»... 5 more\n|2026-11-22 10:00:01 INFO x\n",
        "|java.io.IOException: broken pipe\n|2026-11-22 10:00:00 WARN main: ERROR: x\n+»at a.B.c(B.java:1)\n",
        "|java.io.IOException: broken pipe\n|main: ERROR: x\n|next\n",
        "|\"main\" #1 prio=5 os_prio=0 cpu=1.2ms tid=0x00007f nid=0x1b waiting on condition  [0x00007f]\n\
         +   java.lang.Thread.State: WAITING (parking)\n+»at a.B.c(B.java:1)\n+»- parking to wait for  <0x1> (a.Sync)\n\
         |\"GC Thread#0\" os_prio=0 cpu=1ms tid=0x00007f nid=0x1c runnable\n",
        // java.util.logging.
        "|Nov 22, 2026 10:00:00 AM com.a.App main\n+SEVERE: failed\n+java.lang.Error: x\n+»at a.B.c(B.java:1)\n\
         |Nov 22, 2026 1:00:01 PM com.a.App main\n+INFO: next\n|Nov. 22, 2026 1:00:01 nachm. com.a.App main\n\
         +INFORMATION: weiter\n|Nov 22, 2026 1:00:02 PM com.a.App main\n|next\n",
        "|Nov 22, 2026 a line of prose that goes on\n|INFO: next\n",
    ] {
        check(&preset(MultilinePreset::Java), text);
    }
    check(
        &preset(MultilinePreset::Node),
        "|error: Uncaught (in promise) Error: boom\n+    throw new Error(\"boom\");\n+          ^\n\
         +    at file:///srv/a.ts:3:9\n|error: not found\n|next\n",
    );
    check(
        &preset(MultilinePreset::Node),
        "|node:events:495\n+      throw er; // Unhandled 'error' event\n+      ^\n+\n\
         +Error: listen EADDRINUSE: address already in use :::3000\n+    at Server.listen (node:net:1817:16)\n\
         +Emitted 'error' event on Server instance at:\n+    at emitErrorNT (node:net:1796:8) {\n\
         +  code: 'EADDRINUSE',\n+  errno: -98\n+}\n+\n+Node.js v20.11.0\n|Emitted 'error' event at:\n|next\n",
    );
}

#[test]
fn go() {
    let table = [
        "|runtime: out of memory: cannot allocate 4194304-byte block (66191360 in use)\n+fatal error: out of memory\n+\n\
         +runtime stack:\n+runtime.throw({0x1, 0x2})\n+»/usr/local/go/src/runtime/panic.go:1077 +0x48\n|next\n",
        "|runtime/cgo: pthread_create failed: Resource temporarily unavailable\n+SIGABRT: abort\n+PC=0x7f m=0 sigcode=0\n\
         +\n+goroutine 0 [idle]:\n+runtime.main()\n|next\n",
        "|==================\n+WARNING: DATA RACE\n+Write at 0x00c0 by goroutine 7:\n+  main.main.func1()\n\
         +      /a.go:5 +0x44\n+\n+Previous write at 0x00c0 by main goroutine:\n+  main.main()\n+      /a.go:9 +0x1\n\
         +==================\n|==================\n+WARNING: DATA RACE\n+Read at 0x00c1 by goroutine 8:\n\
         +  main.f()\n+      /a.go:5 +0x44\n+==================\n|Found 2 data race(s)\n|exit status 66\n",
        "|==================\n|a banner\n|==================\n|next\n",
        // gin.
        "|2026/11/22 10:00:00 [Recovery] 2026/11/22 - 10:00:00 panic recovered:\n+GET / HTTP/1.1\n+Host: localhost\n+\n\
         +runtime error: index out of range [5] with length 3\n+/usr/local/go/src/runtime/panic.go:88 (0x43)\n\
         +»goPanicIndex: panic(boundsError{x: int64(x)})\n+/srv/main.go:12 (0x7f)\n+»main.main.func1: _ = a[5]\n\
         |[GIN] 2026/11/22 - 10:00:00 | 500 | 1.2ms | 127.0.0.1 | GET \"/\"\n",
    ];
    table.iter().for_each(|text| check(&preset(MultilinePreset::Go), text));
}

#[test]
fn ruby_and_rust() {
    for text in [
        // The exception that was being handled comes behind; a trace that handles nothing is another run's.
        "|app.rb:5:in `rescue in f': outer (RuntimeError)\n+»from app.rb:2:in `f'\n+»from app.rb:8:in `<main>'\n\
         +app.rb:3:in `f': inner (ArgumentError)\n+»from app.rb:8:in `<main>'\n|next\n",
        "|app.rb:9:in 'Object#fail_with': outer (RuntimeError)\n+»from app.rb:5:in 'Object#rescue in f'\n\
         +»from app.rb:8:in '<main>'\n+app.rb:3:in 'Integer#/': divided by 0 (ZeroDivisionError)\n+»from app.rb:8:in '<main>'\n",
        "|a.rb:5:in `rescue in f': undefined method `x' for nil:NilClass (NoMethodError)\n+\n+  a.x\n+   ^^\n\
         +»from a.rb:2:in `f'\n+a.rb:3:in `f': inner (ArgumentError)\n+»from a.rb:8:in `<main>'\n|next\n",
        "|app.rb:3:in `f': x (ArgumentError)\n+»from app.rb:8:in `<main>'\n\
         |app.rb:3:in `f': x (ArgumentError)\n+»from app.rb:8:in `<main>'\n",
        "|a.rb:1:in `<main>': undefined local variable or method `fo' for main:Object (NameError)\n+\n+fo\n+^^\n\
         +Did you mean?  for\n|next\n",
        // Puma and Sinatra.
        "|2026-11-22 10:00:00 +0000 Rack app (\"GET /\" - (127.0.0.1)): #<RuntimeError: boom>\n\
         +/app/app.rb:3:in `f'\n+/gems/puma/server.rb:1:in `call'\n|next\n|made: #<A: 1>\n|next\n",
        "|2026-11-22 10:00:00 - RuntimeError - boom:\n+»/app/app.rb:5:in `block in <class:App>'\n\
         +»/usr/lib/ruby/sinatra/base.rb:1686:in `call'\n|next\n|a - b:\n|next\n",
    ] {
        check(&preset(MultilinePreset::Ruby), text);
    }
    for text in [
        "|Error: \n+   0: failed\n+\n+Location:\n+   src/main.rs:9\n+\n\
         +Backtrace omitted. Run with RUST_BACKTRACE=1 environment variable to display it.\n\
         +Run with RUST_BACKTRACE=full to include source snippets.\n|next\n",
        "|thread 'main' panicked at library/core/src/panicking.rs:221:5:\n+panic in a function that cannot unwind\n\
         +stack backtrace:\n+   0: x\n\
         +note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.\n\
         +thread caused non-unwinding panic. aborting.\n|next\n",
        "|thread 'main' panicked at src/main.rs:2:5:\n+x\n+thread panicked while processing panic. aborting.\n|next\n",
        "|thread 'main' has overflowed its stack\n+fatal runtime error: stack overflow, aborting\n|next\n",
    ] {
        check(&preset(MultilinePreset::Rust), text);
    }
}

/// .NET speaks the language of its host: other words before a frame, behind an inner exception, before one that nobody caught.
#[test]
fn dotnet_in_other_languages() {
    for text in [
        "|Unbehandelte Ausnahme: System.InvalidOperationException: kein Bestand\n+ ---> System.IO.IOException: Platte\n\
         +   bei Shop.Disk.Read() in C:\\src\\Disk.cs:Zeile 3.\n\
         +   --- Ende der internen Ausnahmestapelüberwachung ---\n\
         +   bei Shop.Order.Pay(Int32 id) in C:\\src\\Order.cs:Zeile 12.\n\
         +--- Ende der Stapelüberwachung vom vorhergehenden Ort ---\n+   bei Program.Main()\n|weiter\n",
        "|2026-11-22 10:00:00 [ERR] Bestellung\n+System.InvalidOperationException: kein Bestand\n\
         +   bei Shop.Order.<Pay>d__3.MoveNext()\n|2026-11-22 10:00:01 [INF] weiter\n",
        "|Exception non gérée : System.Exception: pas de stock\n+   à Shop.Order.Pay(Int32 id) dans C:\\a.cs:ligne 12\n\
         +   --- Fin de la trace de la pile d'exception interne ---\n+   à Program.Main()\n|suite\n",
        "|Excepción no controlada: System.Exception: nada\n+   en Shop.Order.Pay(Int32 id) en C:\\a.cs:línea 12\n|x\n",
        "|ハンドルされていない例外: System.Exception: x\n+   場所 Shop.Order.Pay(Int32 id) 場所 C:\\a.cs:行 12\n|x\n",
        "|未经处理的异常:  System.Exception: x\n+   在 Shop.Order.Pay(Int32 id) 位置 C:\\a.cs:行号 12\n|x\n",
        // Words of prose.
        "|INFO a\n|   in the middle (of it)\n|   a list. of (words)\n|   en route (x)\n|Unbehandelte Ausnahme beim Start\n",
    ] {
        check(&preset(MultilinePreset::Dotnet), text);
    }
}

/// sbt puts its own level before each line of a trace.
#[test]
fn sbt() {
    for text in [
        "|[info] running Main\n|[error] (run-main-0) java.lang.IllegalStateException: no stock\n\
         +[error] java.lang.IllegalStateException: no stock\n+[error] »at shop.Main$.main(Main.scala:3)\n\
         +[error] Caused by: java.io.IOException: x\n+[error] »at a.B.c(B.java:1)\n+[error] »... 4 more\n\
         |[error] Nonzero exit code: 1\n|[info] next\n",
        "|[error] java.lang.Error: x\n+[error]     at a.B.c(B.java:1)\n|[error] (Compile / run) failed\n",
        // Each is a record of its own.
        "|[error] /src/a.scala:3: not found: value x\n|[error]   foo\n|[error]   ^\n|[error] one error found\n",
        "|[error] a failed\n|[error] java.lang.Error: one\n|[error] java.lang.Error: two\n|[warn] next\n",
    ] {
        check(&preset(MultilinePreset::Java), text);
    }
}
