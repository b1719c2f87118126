//! Stack traces as the runtimes printed them (Java 17, Python 3.11, Node 20), one of Go written by its format, and
//! lines that must stay apart.
//!
//! `|` begins a line that begins a group, `+` one that continues it; `»` is a tab, `·` a blank at a line's end.

use super::*;

#[path = "traces_tests.rs"]
mod traces_tests;

fn preset(preset: MultilinePreset) -> Multiline {
    rule(MultilineRule::Preset(preset))
}

fn rule(rule: MultilineRule) -> Multiline {
    Multiline { rule, timeout: Duration::from_secs(1), lines_max: 500, bytes_max: 1 << 18 }
}

/// Numbers of the lines that begin groups: a line that may belong to a group waits for one that decides.
#[derive(Default)]
struct Marker {
    open: Option<Group>,
    waiting: Vec<(String, bool)>,
    found: String,
}

impl Marker {
    fn mark(&mut self, mark: char, line: &str) {
        self.found += &format!("{mark}{line}\n");
    }

    fn take(&mut self, multiline: &Multiline, line: &str) {
        let (group, blank) = match self.open.map(|group| multiline.next(group, line.as_bytes())) {
            Some(Next::Goes(group)) => {
                for (line, _) in std::mem::take(&mut self.waiting) {
                    self.mark('+', &line);
                }
                self.mark('+', line);
                self.open = Some(group);
                return;
            }
            Some(Next::Maybe(group)) => (group, false),
            Some(Next::Blank(group)) => (group, true),
            Some(Next::Ends) | None => {
                self.end(multiline);
                if let Some(group) = self.open {
                    if multiline.next(group, line.as_bytes()) != Next::Ends {
                        return self.take(multiline, line);
                    }
                    return self.begin_after_end(multiline, line);
                }
                return self.begin(multiline, line);
            }
        };
        self.waiting.push((line.to_owned(), blank));
        self.open = Some(group);
    }

    fn begin(&mut self, multiline: &Multiline, line: &str) {
        self.mark('|', line);
        self.open = Some(multiline.begin(line.as_bytes()));
    }

    fn begin_after_end(&mut self, multiline: &Multiline, line: &str) {
        self.end_all(multiline);
        self.begin(multiline, line);
    }

    /// Ends the open group; waiting lines that are not part of it begin others.
    fn end(&mut self, multiline: &Multiline) {
        let waiting = std::mem::take(&mut self.waiting);
        self.open = None;
        let mut own = true;
        for (line, blank) in waiting {
            own &= blank;
            if own { self.mark('+', &line) } else { self.take(multiline, &line) }
        }
    }

    fn end_all(&mut self, multiline: &Multiline) {
        while self.open.is_some() {
            self.end(multiline);
        }
    }
}

/// Groups the lines of a marked text, and compares where the groups begin.
fn check(multiline: &Multiline, marked: &str) {
    let marked = marked.replace('»', "\t").replace('·', " ");
    let mut marker = Marker::default();
    for line in marked.lines() {
        marker.take(multiline, &line[1..]);
    }
    marker.end_all(multiline);
    assert_eq!(marker.found, marked);
}

#[test]
fn traces_of_every_runtime() {
    for (name, text) in [
        (MultilinePreset::Java, JAVA),
        (MultilinePreset::Python, PYTHON),
        (MultilinePreset::Go, GO),
        (MultilinePreset::Node, NODE),
        (MultilinePreset::Dotnet, DOTNET),
        (MultilinePreset::Ruby, RUBY),
        (MultilinePreset::Php, PHP),
        (MultilinePreset::Rust, RUST),
        (MultilinePreset::Postgres, POSTGRES),
    ] {
        check(&preset(name), text);
    }
}

/// A preset must not join lines that are not part of a trace: two records would become one.
#[test]
fn other_lines_stay_apart() {
    let lines = "|one\n|\n|  indented\n|\tat\n|}\n|Caused\n|KeyError: x\n|ERROR a\n|ERROR b\n|INFO: c\n|f(x)\n|/srv/x.js\n|exit status 2\n";
    for (name, preset_of) in MultilinePreset::NAMED.into_iter().filter(|(name, _)| *name != "postgres") {
        println!("{name}");
        check(&preset(preset_of), lines);
    }
    // An exception that is logged without frames takes no other line, whatever follows.
    check(
        &preset(MultilinePreset::Java),
        "|java.io.IOException: broken pipe\n|done\n|\n|next\n|ERROR x\n|\n|y\n",
    );
    check(&preset(MultilinePreset::Node), "|ERROR boom\n|Error: boom\n|next\n|and more\n");
    check(&preset(MultilinePreset::Ruby), "|ERROR boom\n|\n|RuntimeError (x):\n|next\n");
    check(
        &preset(MultilinePreset::Php),
        "|PHP Fatal error:  x in /a.php on line 3\n|next\n|#1 in the list\n",
    );
    check(&preset(MultilinePreset::Rust), "|Error: x\n|\n|next\n|   0: x\n");
    check(
        &preset(MultilinePreset::Dotnet),
        "|info: Microsoft.Hosting[14]\n+      Now listening\n|next\n|  x\n",
    );
    let two = "|2026-11-22 10:00:00 UTC [7] ERROR:  x\n|2026-11-22 10:00:00 UTC [8] STATEMENT:  y\n|next\n";
    check(&preset(MultilinePreset::Postgres), two);
    check(&preset(MultilinePreset::Java), "|not a level\n|java.lang.Error: x\n+\tat A.b(A.java:1)\n");
    check(&preset(MultilinePreset::Node), "|/srv/x.js:5\n|throw e;\n|what now\n");
    check(&preset(MultilinePreset::Python), "|Traceback (most recent call last):\n+  x\n|done\n");
    check(&preset(MultilinePreset::Python), "|Traceback (most recent call last):\n|INFO two words here\n");
}

/// `name: text` as the preset's name, the preset, and the text.
fn of_preset(named: &str) -> (&str, MultilinePreset, &str) {
    let (name, text) = named.split_once(": ").expect("a preset's name");
    let of = MultilinePreset::NAMED.into_iter().find(|(known, _)| *known == name).expect("known").1;
    (name, of, text)
}

/// Programs name their errors freely. Such a name alone does not show that it is an error, so it joins a line with a
/// level before it only if a frame follows at once.
#[test]
fn errors_of_any_name() {
    let frames = [
        (MultilinePreset::Java, "\tat A.b(A.java:1)"),
        (MultilinePreset::Dotnet, "   at Shop.Order.Pay() in /src/Order.cs:line 12"),
        (MultilinePreset::Node, "    at f (/app/a.ts:9:11)"),
        (MultilinePreset::Ruby, "app/order.rb:12:in `pay'"),
        (MultilinePreset::Php, "Stack trace:"),
    ];
    let heads = [
        "java: org.springframework.web.client.HttpClientErrorException$NotFound: 404",
        "java: a.HttpServerErrorException$InternalServerError: 500 Internal Server Error: \"no\"",
        "java: com.a.MyFailure: no stock",
        "java: com.a.MyFailure",
        "java: com.a.B$C",
        "java: com.a.Failed: x",
        "java: clojure.lang.ExceptionInfo: no stock {:id 17}",
        "java: com.a.Shop$$anon$1: no stock",
        "java: com.a.Errors$NotFound$: no stock",
        "java: MyException: no stock",
        "dotnet: Shop.OrderFailed: no stock",
        "dotnet: Shop.Order+NotFound: no stock",
        "dotnet: Shop.Failed`1[System.Int32]: no stock",
        "dotnet: System.Net.Sockets.SocketException (111): Connection refused",
        "dotnet: Microsoft.Data.SqlClient.SqlException (0x80131904): Login failed",
        "dotnet: MyException: no stock",
        "node: OutOfStock: 17",
        "node: NotFound [E404]: /cart",
        "node: Uncaught OutOfStock: 17",
        "node: OutOfStock",
        "ruby: Shop::OutOfStock (no stock):",
        "ruby: Shop::OutOfStock: no stock",
        "ruby: OrderError: no stock",
        "php: Shop\\OutOfStock: no stock in /srv/order.php:12",
    ];
    for head in heads {
        let (name, of, head) = of_preset(head);
        let frame = frames.iter().find(|(preset, _)| *preset == of).expect("a frame").1;
        println!("{name}: {head}");
        check(&preset(of), &format!("|ERROR order failed\n+{head}\n+{frame}\n|next\n"));
        check(&preset(of), &format!("|{head}\n+{frame}\n|next\n"));
        check(&preset(of), &format!("|not a level\n|{head}\n+{frame}\n|next\n"));
    }
    let apart = [
        "java: com.a.MyFailure: no stock",
        "java: shop.Order: started",
        "dotnet: Shop.OrderFailed: no stock",
        "node: OutOfStock: 17",
        "ruby: Shop::OutOfStock: no stock",
        "php: x in /srv/order.php:12",
    ];
    for head in apart {
        let (name, of, head) = of_preset(head);
        println!("{name}: {head}, apart");
        check(&preset(of), &format!("|ERROR order failed\n|{head}\n|next\n|{head}\n|INFO x\n"));
    }
    // A level behind the name makes it a record of its own.
    let frame = "\tat A.b(A.java:1)";
    check(&preset(MultilinePreset::Java), &format!("|ERROR one\n|shop.Order: ERROR two\n+{frame}\n"));
    check(&preset(MultilinePreset::Java), &format!("|ERROR one\n|note: two\n+{frame}\n"));
    check(&preset(MultilinePreset::Java), &format!("|ERROR one\n|shop.Order: two\n|three\n+{frame}\n"));
    check(&preset(MultilinePreset::Node), "|ERROR one\n|INFO: two\n+    at f (/app/a.ts:9:11)\n");
    check(&preset(MultilinePreset::Ruby), "|ERROR one\n|INFO: two\n+app/order.rb:12:in `pay'\n");
}

/// Forms of traces that libraries print and runtimes do not.
#[test]
fn other_forms() {
    check(
        &preset(MultilinePreset::Java),
        "|ERROR x\n+com.a.MyFailure: no stock\n+  Detail: 17\n+»at A.b(A.java:1)\n\
         +»Suppressed: reactor.core.publisher.FluxOnAssembly$OnAssemblyException: \n\
         +Error has been observed at the following site(s):\n+»*__checkpoint => a\n+Original Stack Trace:\n\
         +»»at A.c(A.java:2)\n+Caused by: com.a.Failed\n+»... 1 more\n|next\n",
    );
    check(
        &preset(MultilinePreset::Dotnet),
        "|fatal: [ERR] x\n+System.Net.Http.HttpRequestException: refused (host:80)\n\
         + ---> System.Net.Sockets.SocketException (111): Connection\n+refused\n+   at A.B()\n\
         +   --- End of inner exception stack trace ---\n+   at C.D()\n+  Exception data:\n+    SqlState: 42P01\n\
         +ClientConnectionId:5e\n+Error Number:4060,State:1,Class:11\n|next\n",
    );
    check(
        &preset(MultilinePreset::Python),
        "|ERROR:root:x\n+Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n\
         +__main__.pay.<locals>.OutOfStock: 17\n|next\n|Traceback (most recent call last):\n\
         +  File \"/a.py\", line 1, in f\n+socket.timeout\n|next\n|Traceback (most recent call last):\n\
         +  File \"/a.py\", line 1, in f\n+shop.Empty: no stock\n|next\n",
    );
    check(
        &preset(MultilinePreset::Python),
        "|ERROR x\n+concurrent.futures.process._RemoteTraceback: \n+\"\"\"\n\
         +Traceback (most recent call last):\n+  File \"/a.py\", line 1, in f\n+ValueError: x\n+\"\"\"\n+\n\
         +The above exception was the direct cause of the following exception:\n+\n\
         +Traceback (most recent call last):\n+  File \"/a.py\", line 2, in g\n+ValueError: x\n|next\n",
    );
    check(
        &preset(MultilinePreset::Python),
        "|ERROR x\n+  + Exception Group Traceback (most recent call last):\n+  |   File \"/a.py\", line 1, in f\n\
         +  | shop.Failures: many (1 sub-exception)\n+  +-+---------------- 1 ----------------\n\
         +    | shop.OutOfStock: 17\n+    +------------------------------------\n|next\n",
    );
    check(
        &preset(MultilinePreset::Go),
        "|2026-11-22T10:00:00Z ERROR shop/order.go:12 order failed\n+main.(*Order).pay\n+»/srv/main.go:8\n\
         +net/http.HandlerFunc.ServeHTTP\n+»/usr/local/go/src/net/http/server.go:2136\n|next\n\
         |panic: main.OutOfStock{Id:17} [recovered, repanicked]\n+\n+goroutine 1 [running]:\n+main.main()\n\
         +»/srv/main.go:5 +0x1\n|ERROR x\n|main.main\n|next\n",
    );
    check(
        &preset(MultilinePreset::Ruby),
        "|E, [2026-11-22T10:00:02 #1] ERROR -- : x\n+\n\
         +ActiveRecord::StatementInvalid (PG::UndefinedTable: relation \"x\" does not exist\n\
         +LINE 1: SELECT 1\n+        ^\n+):\n+\n+app/models/order.rb:12:in `pay'\n|next\n",
    );
    check(
        &preset(MultilinePreset::Php),
        "|[22-Nov-2026 10:00:00 UTC] Shop\\OutOfStock: no stock in /srv/order.php:12\n+Stack trace:\n\
         +#0 /srv/index.php(5): Order->pay(17)\n+#1 {main}\n|next\n",
    );
    check(
        &preset(MultilinePreset::Rust),
        "|2026-11-22T10:00:00Z ERROR shop: order failed\n+\n+Caused by:\n+    0: reading stock\n|next\n\
         |ERROR shop: x\n+Error: order 17 failed\n+\n+Caused by:\n+    no such file\n|next\n\
         |ERROR shop: x\n|Error: order 17 failed\n|next\n",
    );
}

/// Forms that frameworks give to the traces of their runtimes.
#[test]
fn forms_of_frameworks() {
    let table = [
        // Tomcat 9 and older.
        (
            MultilinePreset::Java,
            "|28-Nov-2026 10:00:00.123 SEVERE [main] org.apache.A.b Exception starting filter [x]\n\
             +»java.lang.ClassNotFoundException: com.x.Y\n+»»at a.B.c(B.java:1328)\n+»Caused by: java.io.IOException: x\n\
             +»»... 2 more\n|28-Nov-2026 10:00:01.123 INFO [main] next\n\
             | SEVERE [x] a.B.c Exception starting filter struts2\n+ java.lang.ClassNotFoundException: a.X\n\
             +»at a.B.c(B.java:1720)\n|next\n|ERROR x\n| java.lang.Error: x\n|next\n",
        ),
        // Flyway.
        (
            MultilinePreset::Java,
            "|2026-11-28 10:00:00.1 ERROR 1 --- [main] o.s.b.A : failed\n+\n\
             +org.s.BeanCreationException: x; nested exception is org.f.DbMigrate$FlywayMigrateException: \n\
             +Migration V1__x.sql failed\n+--------------------------\n+SQL State  : 42P07\n+Error Code : 0\n\
             +Message    : ERROR: relation \"x\" already exists\n+Location   : db/V1.sql\n+\n+»at org.s.A.b(A.java:1)\n\
             +Caused by: org.f.DbMigrate$FlywayMigrateException: \n+Message    : ERROR: relation \"x\" already exists\n+\n\
             +»at org.f.A.b(A.java:1)\n|next\n|java.lang.Error: x\n|ERROR : y\n",
        ),
        // loguru.
        (
            MultilinePreset::Python,
            "|2026-11-28 10:00:00.123 | ERROR    | __main__:<module>:5 - caught\n+Traceback (most recent call last):\n+\n\
             +> File \"/app/a.py\", line 5, in <module>\n+    f()\n+    └ <function f at 0x7f>\n+\n\
             +  File \"/app/a.py\", line 3, in f\n+    raise ValueError(\"x\")\n+\n+ValueError: x\n|next\n",
        ),
        // node-postgres.
        (
            MultilinePreset::Node,
            "|2026-11-28T10:00:00Z ERROR query failed\n+error: relation \"users\" does not exist\n\
             +    at Parser.parse (/app/parser.js:287:98)\n+    at Socket.<anonymous> (/app/x.js:1:1) {\n+  length: 104,\n\
             +  code: '42P01'\n+}\n|next\n|ERROR x\n|error: y\n|next\n",
        ),
        // Node 14 and 20.
        (
            MultilinePreset::Node,
            "|internal/modules/cjs/loader.js:818\n+  throw err;\n+  ^\n+\n+Error: Cannot find module '/app/x.js'\n\
             +    at internal/main/run_main_module.js:17:47 {\n+  code: 'MODULE_NOT_FOUND',\n+}\n|next\n\
             |node:internal/process/promises:288\n+            triggerUncaughtException(err, true);\n+            ^\n+\n\
             +[UnhandledPromiseRejection: This error originated … with the reason \"boom\".] {\n\
             +  code: 'ERR_UNHANDLED_REJECTION'\n+}\n+\n+Node.js v20.11.0\n|next\n",
        ),
        (
            MultilinePreset::Go,
            "|SIGSEGV: segmentation violation\n+PC=0x7f m=0 sigcode=1 addr=0x0\n\
             +signal arrived during cgo execution\n+\n+goroutine 1 gp=0xc0000061c0 m=0 mp=0x5b1e00 [syscall]:\n\
             +runtime.cgocall(0x1, 0x2)\n+»/usr/local/go/src/runtime/cgocall.go:157 +0x4b\n|next\n\
             |panic: first line\n+second line\n+\n+goroutine 1 [running]:\n+main.main()\n+»/app/main.go:5 +0x1\n\
             +exit status 2\n|next\n|panic: x\n|next\n|and more\n",
        ),
        (
            MultilinePreset::Php,
            "|[28-Nov-2026 10:00:00 UTC] PHP Fatal error:  Uncaught mysqli_sql_exception: syntax; near\n\
             +'FROM x' at line 2 in /srv/class-wpdb.php:2431\n+Stack trace:\n\
             +#0 /srv/class-wpdb.php(2431): mysqli_query(Object(mysqli), 'SELECT a\n+FROM x')\n+#1 {main}\n\
             +  thrown in /srv/class-wpdb.php on line 2431\n|[28-Nov-2026 10:00:01 UTC] next\n",
        ),
        (
            MultilinePreset::Rust,
            "|Error: \n+   0: failed to read\n+   1: No such file\n+\n+Location:\n+   src/main.rs:9\n+\n\
             +  ━━━ BACKTRACE ━━━\n+                                (4 frames hidden)\n+   5: a::main\n\
             +      at /app/src/main.rs:9\n|next\n",
        ),
    ];
    for (name, text) in table {
        check(&preset(name), text);
    }
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

/// A line of any length costs a bounded amount: only its first 4 KiB are looked at.
#[test]
fn long_lines() {
    let java = preset(MultilinePreset::Java);
    let mut line = b"x".repeat(MULTILINE_LOOK_BYTES);
    line.extend_from_slice(b" ERROR");
    assert_eq!(java.begin(&line), Group(State::Plain));
    assert_eq!(java.begin(b"ERROR x\r"), Group(State::Warned));
    assert_eq!(java.begin(b"INFO x\r"), Group(State::Levelled));
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
|2026-08-03 19:45:07.671 ERROR 1 --- [nio-8080-exec-1] o.a.c.c.C.[.[.[/] : Servlet.service() threw exception
+
+java.lang.NullPointerException: Cannot invoke "String.length()" because "name" is null
+»at a.b.C.d(C.java:1)
+
+
+Caused by: java.sql.SQLException: Failed to parse; SQL statement:
+select 1 from [42001-197]
+»at org.a.B.c(B.java:9)
+
|2026-08-03 19:45:08.000  INFO 1 --- [main] a : fine
|next
|java.sql.SQLException: Failed to parse; SQL statement:
+select 1
+
+from x [42001-197]
+»at org.a.B.c(B.java:9)
|next
|org.postgresql.util.PSQLException: ERROR: duplicate key value violates unique constraint "order_pkey"
+  Detail: Key (id)=(17) already exists.
+»at org.postgresql.core.v3.QueryExecutorImpl.receiveErrorResponse(QueryExecutorImpl.java:2725)
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
|2026-11-22 10:00:00,123 ERROR shop: order failed
+Traceback (most recent call last):
+  File "/srv/db.py", line 5, in execute
+    self.dialect.do_execute(
+psycopg2.errors.UniqueViolation: duplicate key value violates unique constraint "order_pkey"
+DETAIL:  Key (id)=(17) already exists.
+
+
+The above exception was the direct cause of the following exception:
+
+Traceback (most recent call last):
+  File "/srv/app.py", line 9, in <module>
+    session.commit()
+sqlalchemy.exc.ProgrammingError: (psycopg2.errors.SyntaxError) syntax error at or near "slect"
+LINE 1: slect 1
+        ^
+
+[SQL: slect 1]
+[parameters: {'id': 17}]
+(Background on this error at: https://sqlalche.me/e/20/f405)
|next
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
|fatal error: concurrent map writes
+
+runtime stack:
+runtime.throw({0x4a1b2c?, 0x0?})
+»/usr/local/go/src/runtime/panic.go:1077 +0x48 fp=0x7ffd sp=0x7ffc pc=0x43
+
+goroutine 1 gp=0xc000002380 m=0 mp=0x57a0c0 [running]:
+main.main()
+»/srv/main.go:5 +0x1
+
+rip    0x46b5a1
+exit status 2
|runtime: goroutine stack exceeds 1000000000-byte limit
+runtime: sp=0xc0201 stack=[0xc0200, 0xc0400]
+fatal error: stack overflow
+
+runtime stack:
+runtime.newstack()
+»/usr/local/go/src/runtime/stack.go:1103 +0x5bd
|SIGQUIT: quit
+PC=0x46b5a1 m=0 sigcode=128
+
+goroutine 0 [idle]:
+runtime.futex()
+»/usr/local/go/src/runtime/sys_linux_amd64.s:557 +0x21
|panic: no stack follows
|
|next
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
|2026-01-01 10:00:00 ERROR boom
+Error: boom
+    at f (/app/a.ts:9:11)
|next
|Error: Command failed: make
+make: *** No targets.  Stop.
+
+    at genericNodeError (node:internal/errors:984:15)
+    at ChildProcess.exithandler (node:child_process:422:12) {
+  code: 2
+}
|2026-01-01 10:00:00 ERROR again
+TypeError [ERR_INVALID_ARG_TYPE]: The "path" argument must be of type string. Received undefined
+    at Object.readFileSync (node:fs:441:42)
|next
"#;

const DOTNET: &str = r#"|Unhandled exception. System.InvalidOperationException: no stock
+ ---> System.IO.IOException: closed
+   at Shop.Stock.Get(Int32 id) in /src/Stock.cs:line 8
+   --- End of inner exception stack trace ---
+   at Shop.Order.Pay() in /src/Order.cs:line 12
+--- End of stack trace from previous location ---
+   at Program.<Main>$(String[] args) in /src/Program.cs:line 3
|next
|fail: Microsoft.AspNetCore.Server.Kestrel[13]
+      Connection id "0HN", Request id "0HN:1": An unhandled exception was thrown by the application.
+      System.InvalidOperationException: no stock
+         at Shop.Order.Pay() in /src/Order.cs:line 12
|info: Microsoft.Hosting.Lifetime[14]
+      Now listening on: http://[::]:8080
|2026-11-22 10:00:00.123 +00:00 [ERR] order 17 failed
+System.AggregateException: One or more errors occurred. (first)
+ (second)
+   at System.Threading.Tasks.Task.Wait()
|2026-11-22 10:00:01.123 +00:00 [INF] next
"#;

const RUBY: &str = r#"|/srv/app.rb:5:in `pay': no stock (RuntimeError)
+»from /srv/app.rb:9:in `<main>'
|next
|app.rb:2:in 'Order#pay': no stock (RuntimeError)
+»from app.rb:5:in '<main>'
|E, [2026-11-22T10:00:00.123456 #1] ERROR -- : [0af7651916cd]···
+[0af7651916cd] RuntimeError (no stock):
+[0af7651916cd]···
+[0af7651916cd] app/models/order.rb:12:in `pay'
+[0af7651916cd] app/controllers/orders_controller.rb:5:in `create'
|I, [2026-11-22T10:00:01.123456 #1]  INFO -- : next
|E, [2026-11-22T10:00:02.123456 #1] ERROR -- : order failed
+··
+RuntimeError (no stock):
+··
+app/models/order.rb:12:in `pay'
+
|next
"#;

const PHP: &str = r#"|PHP Fatal error:  Uncaught RuntimeException: no stock in /srv/order.php:12
+Stack trace:
+#0 /srv/index.php(5): Order->pay(17)
+#1 {main}
+
+Next LogicException: order failed in /srv/index.php:7
+Stack trace:
+#0 {main}
+  thrown in /srv/index.php on line 7
|next
|[2026-11-22 10:00:00] production.ERROR: no stock {"exception":"[object] (RuntimeException(code: 0): no stock at /srv/app/Order.php:12)
+[stacktrace]
+#0 /srv/vendor/laravel/framework/src/Illuminate/Routing/Controller.php(54): App\Http\Orders->pay()
+#1 {main}
+"}·
|[2026-11-22 10:00:01] production.INFO: next
|[22-Nov-2026 10:00:00 UTC] PHP Fatal error:  Uncaught PDOException: SQLSTATE[42000]: Syntax error
+near 'slect' in /srv/db.php:3
+Stack trace:
+#0 {main}
+  thrown in /srv/db.php on line 3
|next
"#;

const RUST: &str = r#"|thread 'main' panicked at src/main.rs:5:10:
+no stock
+note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
|next
|thread 'tokio-runtime-worker' (4711) panicked at src/order.rs:12:9:
+assertion `left == right` failed
+  left: 1
+ right: 2
+stack backtrace:
+   0: __rustc::rust_begin_unwind
+             at /rustc/5980/library/std/src/panicking.rs:689:5
+   1: shop::order::pay
+note: Some details are omitted, run with `RUST_BACKTRACE=full` for a verbose backtrace.
|next
|thread 'main' panicked at 'no stock', src/main.rs:5:10
+note: run with `RUST_BACKTRACE=1` environment variable to display a backtrace
|Error: order 17 failed
+
+Caused by:
+    0: reading stock
+    1: No such file or directory (os error 2)
+
+Stack backtrace:
+   0: anyhow::error::<impl anyhow::Error>::msg
+             at /srv/src/error.rs:79:36
+
|next
"#;

const POSTGRES: &str = r#"|2026-11-22 10:00:00.123 UTC [71] ERROR:  duplicate key value violates unique constraint "order_pkey"
+2026-11-22 10:00:00.123 UTC [71] DETAIL:  Key (id)=(17) already exists.
+2026-11-22 10:00:00.123 UTC [71] STATEMENT:  insert into orders
+»values (17)
+»returning id;
|2026-11-22 10:00:00.124 UTC [72] LOG:  statement: select 1
+»from x
|2026-11-22 10:00:01 UTC [71-1] shop@shop LOG:  next
|ERROR:  syntax error at or near "slect"
+LINE 1: slect 1
+        ^
+HINT:  write select
|next
"#;
