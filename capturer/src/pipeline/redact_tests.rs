//! Lines as programs print them, and exactly what is left of them.

use super::*;
use crate::decode::work;
use crate::settings::pipeline::RedactPattern;
use crate::sink::testing::Rng;

fn preset(preset: RedactPreset) -> Redact {
    Redact { presets: vec![preset], patterns: Vec::new() }
}

fn own(pattern: &str, with: &str) -> Redact {
    let pattern = Pattern::new(pattern).expect("good");
    Redact { presets: Vec::new(), patterns: vec![RedactPattern { pattern, with: with.to_owned() }] }
}

#[track_caller]
fn check(rules: &Redact, text: &str, expected: &str) {
    let (found, done) = redact(rules, text.as_bytes());
    assert_eq!(String::from_utf8_lossy(&found), expected);
    assert_eq!(done, Done { changed: text != expected, limited: false }, "{text}");
    let (again, _) = redact(rules, &found);
    assert_eq!(again, found, "what was redacted stays as it is");
}

#[test]
fn keys_with_secrets() {
    let rules = preset(RedactPreset::KeySecret);
    let table = [
        ("user=bob password=hunter2 ok", "user=bob password=[redacted] ok"),
        ("DB_PASSWORD: 'a b, c' next", "DB_PASSWORD: '[redacted]' next"),
        (r#"{"user":"bob","password":"hun\"ter2","n":1}"#, r#"{"user":"bob","password":"[redacted]","n":1}"#),
        (r#"{"body":"{\"apiKey\":\"abc\",\"x\":1}"}"#, r#"{"body":"{\"apiKey\":\"[redacted]\",\"x\":1}"}"#),
        ("GET /login?user=bob&token=abc123&x=1", "GET /login?user=bob&token=[redacted]&x=1"),
        ("Authorization: Basic dXNlcjpwYXNz", "Authorization: [redacted]"),
        ("authorization: Bearer abc.def.ghi, x", "authorization: [redacted], x"),
        (r#""X-Api-Key": "k-1""#, r#""X-Api-Key": "[redacted]""#),
        // All cookies of a request: only the site knows which of them is the session.
        ("Cookie: theme=dark; connect.sid=s%3Aabc.def; _ga=GA1 next", "Cookie: [redacted] next"),
        ("> cookie: a=b;c=d", "> cookie: [redacted]"),
        (
            "http.request.header.cookie=a=b; c=d level=info",
            "http.request.header.cookie=[redacted] level=info",
        ),
        ("Set-Cookie: sid=abc; Path=/; HttpOnly", "Set-Cookie: [redacted]; Path=/; HttpOnly"),
        ("cookie=abc; then more", "cookie=[redacted]; then more"),
        // Statements that servers log; addresses that are signed.
        ("CREATE USER a WITH PASSWORD 's3cret' x", "CREATE USER a WITH PASSWORD '[redacted]' x"),
        ("create user 'a'@'%' identified by 's3''cret'", "create user 'a'@'%' identified by '[redacted]'"),
        ("it is no password: 'x' y", "it is no password: '[redacted]' y"),
        ("a mypassword 'x', a password  '' and 'y'", "a mypassword 'x', a password  '' and 'y'"),
        ("CREATE USER bob IDENTIFIED BY \"s3cret\";", "CREATE USER bob IDENTIFIED BY \"[redacted]\";"),
        (
            "CREATE USER bob IDENTIFIED WITH caching_sha2_password BY 's3cret';",
            "CREATE USER bob IDENTIFIED WITH caching_sha2_password BY '[redacted]';",
        ),
        ("ALTER ROLE bob PASSWORD E's3cret'", "ALTER ROLE bob PASSWORD E'[redacted]'"),
        ("SET PASSWORD FOR 'bob'@'%' = 's3cret'", "SET PASSWORD FOR 'bob'@'%' = '[redacted]'"),
        ("SET PASSWORD = PASSWORD('s3cret')", "SET PASSWORD = PASSWORD('[redacted]')"),
        ("CREATE LOGIN bob WITH PASSWORD = N's3cret';", "CREATE LOGIN bob WITH PASSWORD = N'[redacted]';"),
        ("SELECT a FROM b WHERE c = 'x' AND d = \"y\"", "SELECT a FROM b WHERE c = 'x' AND d = \"y\""),
        // What holds a string, as languages print it.
        (
            "Config { user: \"bob\", password: Some(\"s3cret\"), port: 1 }",
            "Config { user: \"bob\", password: Some(\"[redacted]\"), port: 1 }",
        ),
        (
            r#"{"msg":"Config { password: Some(\"s3cret\") }"}"#,
            r#"{"msg":"Config { password: Some(\"[redacted]\") }"}"#,
        ),
        ("{'user': 'bob', 'password': b's3cret'}", "{'user': 'bob', 'password': b'[redacted]'}"),
        ("{u'password': u's3cret'}", "{u'password': u'[redacted]'}"),
        ("password=SecretStr('s3cret')", "password=SecretStr('[redacted]')"),
        ("token: Option<String>::Some(Secret(\"x\"))", "token: Option<String>::Some(Secret(\"[redacted]\"))"),
        ("Password = @\"s3cret\";", "Password = @\"[redacted]\";"),
        ("password=('s3cret',)", "password=('[redacted]',)"),
        ("password: None, \"x\"", "password: None, \"x\""),
        ("update u set password='it''s s3cret' where id=1", "update u set password='[redacted]' where id=1"),
        ("a,\"password=\"\"s3cret\"\"\",b", "a,\"password=\"\"[redacted]\"\"\",b"),
        ("password=\"\"\"s3cret\"\"\" x", "password=\"\"\"[redacted]\"\"\" x"),
        ("password=\"\" \"x\"", "password=\"\" \"x\""),
        ("curl -u \"bob:my s3cret\" http://x", "curl -u \"bob:[redacted]\" http://x"),
        ("mysql -u root -p'my s3cret' db", "mysql -u root -p'[redacted]' db"),
        // Name and value as a list of two.
        (
            "headers=[(b'host', b'x'), (b'cookie', b'session=s3cret'), (b'x-api-key', b's3cret')]",
            "headers=[(b'host', b'x'), (b'cookie', b'[redacted]'), (b'x-api-key', b'[redacted]')]",
        ),
        (r#"[["cookie","session=s3cret"],["a","b"]]"#, r#"[["cookie","[redacted]"],["a","b"]]"#),
        (r#"{"msg":"[(\"DB_PASSWORD\", \"s3cret\")]"}"#, r#"{"msg":"[(\"DB_PASSWORD\", \"[redacted]\")]"}"#),
        (r#"{"errors":[["password","is too short"]]}"#, r#"{"errors":[["password","is too short"]]}"#),
        (r#"tags: ["auth","login"] ["pass", "fail"]"#, r#"tags: ["auth","login"] ["pass", "fail"]"#),
        ("auth=('bob', 's3cret') verify=True", "auth=('[redacted]') verify=True"),
        ("select password=''x'' user='bob'", "select password=''[redacted]'' user='bob'"),
        (r#"["password","token"] ["password","a","b"]"#, r#"["password","token"] ["password","a","b"]"#),
        ("/a?sv=1&sig=abc%3D&se=2", "/a?sv=1&sig=[redacted]&se=2"),
        ("/a?Signature=ab~c_&x=1 sig=TERM", "/a?Signature=[redacted]&x=1 sig=TERM"),
        ("secret => abc", "secret => [redacted]"),
        ("postgres://shop:s3cr:t@db:5432/shop", "postgres://shop:[redacted]@db:5432/shop"),
        ("https://example.com:8443/a?b=c", "https://example.com:8443/a?b=c"),
        ("connect(password=a,b)c, user=x)", "connect(password=[redacted], user=x)"),
        ("pwd=ab,cd,user=x", "pwd=[redacted],user=x"),
        ("client_secret=", "client_secret="),
        ("password: null", "password: null"),
        ("max_tokens=4096 tokens: 12", "max_tokens=4096 tokens: 12"),
        ("bypass=1 spin=2 author=bob", "bypass=1 spin=2 author=bob"),
        ("pin=1234 userPass=x db.pass=y", "pin=[redacted] userPass=[redacted] db.pass=[redacted]"),
        (r#"{"credentials":{"a":"]}","b":[1]},"c":2}"#, r#"{"credentials":"[redacted]","c":2}"#),
        // What is JSON stays JSON.
        (r#"{"password":17,"pin" : 4 }"#, r#"{"password":"[redacted]","pin" : "[redacted]" }"#),
        (r#"got {"a":{"token":17}} x"#, r#"got {"a":{"token":"[redacted]"}} x"#),
        (r#"{"body":"{\"pin\":17,\"x\":1}"}"#, r#"{"body":"{\"pin\":\"[redacted]\",\"x\":1}"}"#),
        (r#"{"body":"{\\\"pin\\\":17}"}"#, r#"{"body":"{\\\"pin\\\":[redacted]}"}"#),
        (r#"{"m":"secrets: [a, b]"}"#, r#"{"m":"secrets: [redacted]"}"#),
        // Options whose names do not say that they are secret; lists with blanks in their values; signed addresses.
        ("mysql -u root -psecret123 db", "mysql -u root -p[redacted] db"),
        (r#"["mysqldump","-phunter2","db"]"#, r#"["mysqldump","-p[redacted]","db"]"#),
        ("mysql -p db", "mysql -p db"),
        ("docker run --name mysql -p3306:3306", "docker run --name mysql -p3306:3306"),
        ("ssh -p22 h; docker -p80:80", "ssh -p22 h; docker -p80:80"),
        ("curl -u bob:hunter2 http://h/", "curl -u bob:[redacted] http://h/"),
        ("curl -s --user 'bob:a:b' h", "curl -s --user 'bob:[redacted]' h"),
        ("curl -ubob:x --username a:b", "curl -ubob:[redacted] --username a:b"),
        ("mysql started -port 3306 -pid=7", "mysql started -port 3306 -pid=7"),
        ("docker -u 1000:1000 x", "docker -u 1000:1000 x"),
        ("curl -u bob http://h:80/", "curl -u bob http://h:80/"),
        (
            "Server=h;User Id=u;Password=p w;Encrypt=true",
            "Server=h;User Id=u;Password=[redacted];Encrypt=true",
        ),
        ("Password=p w;User Id=u;X=y", "Password=[redacted];User Id=u;X=y"),
        ("password=x then more; end", "password=[redacted] then more; end"),
        ("X-Amz-Signature=abcdef0123&X-Amz-Date=1", "X-Amz-Signature=[redacted]&X-Amz-Date=1"),
        ("signature: valid", "signature: valid"),
        ("secrets: [a, b] c", "secrets: [redacted] c"),
        ("password=\"open", "password=\"[redacted]"),
        (
            "key -----BEGIN RSA PRIVATE KEY-----\\nMIIE\\n-----END RSA PRIVATE KEY----- ok",
            "key -----BEGIN RSA PRIVATE KEY-----[redacted]-----END RSA PRIVATE KEY----- ok",
        ),
        ("-----BEGIN PRIVATE KEY-----MIIE", "-----BEGIN PRIVATE KEY-----[redacted]"),
        ("-----BEGIN PRIVATE KEY-----", "-----BEGIN PRIVATE KEY-----"),
        ("-----BEGIN CERTIFICATE-----x", "-----BEGIN CERTIFICATE-----x"),
        ("nothing here: at all = no", "nothing here: at all = no"),
        ("password", "password"),
        ("passwörd=x Passwort: y", "passwörd=x Passwort: y"),
        ("mysql --password hunter2 -u bob", "mysql --password [redacted] -u bob"),
        ("run --db-password 'a b' --token", "run --db-password '[redacted]' --token"),
        (r#"["run","--token","abc","-v"]"#, r#"["run","--token","[redacted]","-v"]"#),
        ("['--api-key', 'abc']", "['--api-key', '[redacted]']"),
        ("--password --verbose x", "--password --verbose x"),
        ("--password=x y", "--password=[redacted] y"),
        ("a user-password reset", "a user-password reset"),
        ("<user>bob</user><password>hunter2</password>", "<user>bob</user><password>[redacted]</password>"),
        (
            "<ns:Password type=\"text\">a&amp;b</ns:Password>",
            "<ns:Password type=\"text\">[redacted]</ns:Password>",
        ),
        ("<password><![CDATA[a<b]]></password>", "<password>[redacted]]]></password>"),
        ("<password/><password></password>", "<password/><password></password>"),
        ("a < password > b", "a < password > b"),
        ("next=%2Flogin%3Fpassword%3Dhunter2%26x%3D1", "next=%2Flogin%3Fpassword%3D[redacted]%26x%3D1"),
        ("q=a%26pin%3d1234&y=2", "q=a%26pin%3d[redacted]&y=2"),
        ("u=token%253Dabc%2526x", "u=token%253D[redacted]%2526x"),
        ("50%3D x%3Dy", "50%3D x%3Dy"),
        (
            r#"{"name":"DB_PASSWORD","value":"x"},{"name":"A","value":"y"}"#,
            r#"{"name":"DB_PASSWORD","value":"[redacted]"},{"name":"A","value":"y"}"#,
        ),
        ("<add key=\"Password\" value=\"x\"/>", "<add key=\"Password\" value=\"[redacted]\"/>"),
    ];
    for (text, expected) in table {
        check(&rules, text, expected);
    }
}

/// As logrus, zerolog, slog's tint, pino-pretty, structlog and jq write them: key, sign and value coloured separately.
#[test]
fn colours_part_nothing() {
    let mut rules = preset(RedactPreset::KeySecret);
    rules.presets.extend([RedactPreset::BearerToken, RedactPreset::Email, RedactPreset::CreditCard]);
    let table = [
        (
            "^36mINFO^0m[0000] login ^36mpassword^0m=hunter2",
            "^36mINFO^0m[0000] login ^36mpassword^0m=[redacted]",
        ),
        ("^36mpassword ^0m=hunter2 ^36muser^0m=bob", "^36mpassword ^0m=[redacted] ^36muser^0m=bob"),
        ("login ^36mpassword=^0mhunter2", "login ^36mpassword=^0m[redacted]"),
        ("  ^35mpassword^39m: \"hunter2\"", "  ^35mpassword^39m: \"[redacted]\""),
        ("^36mpassword^0m=^35mhunter2^0m x", "^36mpassword^0m=^35m[redacted]^0m x"),
        (
            "^34;1m\"password\"^0m^1;39m:^0m ^0;32m\"hunter2\"^0m",
            "^34;1m\"password\"^0m^1;39m:^0m ^0;32m\"[redacted]\"^0m",
        ),
        ("password=hun^1mter^0m2", "password=[redacted]"),
        ("Authorization: ^32mBearer abcdefghijk^0m", "Authorization: ^32m[redacted]^0m"),
        ("got ^32mBearer^0m ^1mabcdefgh-ijk^0m", "got ^32mBearer^0m ^1m[redacted: token]^0m"),
        ("word^0mghp_0123456789abcdefABCD", "word^0m[redacted: token]"),
        ("^31m4111 1111^0m 1111 1111 USD", "^31m[redacted: credit card] USD"),
        ("^31m4111 1111 1111 1111^0mUSD", "^31m[redacted: credit card]^0mUSD"),
        ("from ^36mbob@example.com^0m", "from ^36m[redacted: email]^0m"),
        ("^36mINFO^0m nothing here", "^36mINFO^0m nothing here"),
    ];
    for (text, expected) in table {
        let coloured = |text: &str| text.replace('^', "\u{1b}[");
        check(&rules, &coloured(text), &coloured(expected));
    }
}

#[test]
fn tokens() {
    let rules = preset(RedactPreset::BearerToken);
    check(&rules, "Authorization: Bearer abc123def.x-y_z== x", "Authorization: Bearer [redacted: token] x");
    check(&rules, "bearer: 'AbCdEfGhIjKlMnOpQrStUvWx'", "bearer: '[redacted: token]'");
    check(
        &rules,
        "the bearer of bad news, bearer certificates",
        "the bearer of bad news, bearer certificates",
    );
    let token = "eyJhbGciOiJIUzI1NiJ9.eyJzdWIiOiIxMjM0In0.dozjgNryP4J3jVmNHl0w5N_XgL0n3I9PlFUP0THsR8U";
    check(&rules, &format!("cookie={token};"), "cookie=[redacted: token];");
    check(&rules, "eyJ is no token, nor eyJx.y", "eyJ is no token, nor eyJx.y");
    // Invented, in the form that the issuers document. Each is assembled here, so that no scanner takes it for a real
    // one.
    let body = "0123456789abcdefABCDEF0123456789abcd";
    for head in [
        "ghp_",
        "gho_",
        "github_pat_",
        "glpat-",
        "xoxb-",
        "xoxp-",
        "npm_",
        "pypi-",
        "dckr_pat_",
        "AIza",
        "hvs.",
        "sk_live_",
        "rk_test_",
        "whsec_",
        "sk-proj-",
        "hf_",
    ] {
        for rules in [&rules, &preset(RedactPreset::KeySecret)] {
            check(rules, &format!("got {head}{body}, ok"), "got [redacted: token], ok");
        }
    }
    check(&rules, &format!("id {}IOSFODNN7EXAMPLE.", "AKIA"), "id [redacted: token].");
    for text in [
        "ghp_ is its head",
        "glass-house-with-a-very-long-name",
        "skip_live_",
        "AKIAx",
        "task-0123456789abcdef012345",
    ] {
        check(&rules, text, text);
    }
}

/// What operators' lines have of other issuers' and services' secrets.
#[test]
fn secrets_of_services() {
    let mut rules = preset(RedactPreset::KeySecret);
    rules.presets.push(RedactPreset::BearerToken);
    let hex = "0123456789abcdef0123456789abcdef";
    let long = "0123456789abcdefABCDEF0123456789abcd0123456789abcdefAB";
    for head in [
        "glc_",
        "GOCSPX-",
        "lin_api_",
        "sntrys_",
        "xai-",
        "gsk_",
        "ATATT3",
        "nvapi-",
        "pscale_pw_",
        "figd_",
        "dp.pt.",
        "r8_",
        "ops_eyJ",
        "GR1348941",
        "1//0",
    ] {
        check(&rules, &format!("got {head}{long}, ok"), "got [redacted: token], ok");
        check(&rules, &format!("{head} is its head"), &format!("{head} is its head"));
    }
    for token in [
        format!("SK{hex}"),
        format!("dapi{hex}"),
        format!("rubygems_{hex}"),
        format!("glsa_{hex}_0123abcd"),
        format!("NRAK-{}", "ABCDEFGHIJKLMNOPQRSTUVWXYZ0"),
        format!("PMAK-{}-{hex}", &hex[..24]),
        format!("AGE-SECRET-KEY-1{}", "QPZRY9X8GF2TVDW0S3JN54KHCE6MUA7LQPZRY9X8GF2T"),
    ] {
        check(&rules, &format!("got {token}, ok"), "got [redacted: token], ok");
    }
    let table = [
        // Whoever knows the address may write there.
        (
            "POST https://hooks.slack.com/services/T0_A/B0_A/abcdefghijklmnop failed",
            "POST https://hooks.slack.com/services/[redacted: token] failed",
        ),
        (
            "https://discord.com/api/v10/webhooks/123456789012345678/abcDEF_ghi-jklMNOpqr0123?wait=1",
            "https://discord.com/api/v10/webhooks/123456789012345678/[redacted: token]?wait=1",
        ),
        (
            "https://a.webhook.office.com/webhookb2/a1b2-c3@d4/IncomingWebhook/0123abcd/e5 x",
            "https://a.webhook.office.com/webhookb2/[redacted: token] x",
        ),
        (
            "https://api.telegram.org/bot123456789:AAabcdefghijklmnopqrstu/sendMessage",
            "https://api.telegram.org/bot[redacted: token]/sendMessage",
        ),
        ("curl -H 'X: Basic dXNlcjpwYXNz'", "curl -H 'X: Basic [redacted: token]'"),
        (
            "Authorization: Digest username=\"a\", response=\"6629fae4\", qop=auth done",
            "Authorization: [redacted] done",
        ),
        (
            "authorization: AWS4-HMAC-SHA256 Credential=A/b, SignedHeaders=host, Signature=fe5f status=200",
            "authorization: [redacted] status=200",
        ),
        ("authorization: Bearer abcdefg1 user=bob", "authorization: [redacted] user=bob"),
        ("otp=482913 user_otp: 1 totp=2", "otp=[redacted] user_otp: [redacted] totp=[redacted]"),
        (
            r#"{"verification_code":482913,"mfaCode":"1"}"#,
            r#"{"verification_code":"[redacted]","mfaCode":"[redacted]"}"#,
        ),
        ("tokens=abc123secretX y", "tokens=[redacted] y"),
        (r#"{"tokens":["abc123secretX"],"n":1}"#, r#"{"tokens":"[redacted]","n":1}"#),
        (
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=ab12==;EndpointSuffix=w",
            "DefaultEndpointsProtocol=https;AccountName=a;AccountKey=[redacted];EndpointSuffix=w",
        ),
        ("Ocp-Apim-Subscription-Key: ab12", "Ocp-Apim-Subscription-Key: [redacted]"),
        ("the API key: abc123secretX", "the API key: [redacted]"),
        ("dsn=shop:s3:cr@et@tcp(db:3306)/shop", "dsn=shop:[redacted]@tcp(db:3306)/shop"),
        ("jdbc:oracle:thin:shop/s3cret@db:1521", "jdbc:oracle:thin:shop/[redacted]@db:1521"),
        (
            "-----BEGIN PGP PRIVATE KEY BLOCK-----\\nxc\\n-----END PGP PRIVATE KEY BLOCK-----",
            "-----BEGIN PGP PRIVATE KEY BLOCK-----[redacted]-----END PGP PRIVATE KEY BLOCK-----",
        ),
    ];
    for (text, expected) in table {
        check(&rules, text, expected);
    }
}

/// What only looks like a secret. A line that is destroyed here is not there when somebody needs it.
#[test]
fn what_is_no_secret() {
    let mut rules = preset(RedactPreset::KeySecret);
    rules.presets.push(RedactPreset::BearerToken);
    for text in [
        "max_tokens=4096 prompt_tokens: 12 tokens: 12 tokens=12k",
        r#"usage={"total_tokens":42,"tokens":{"prompt":7,"completion":12}}"#,
        r#"tokens: ["the", "quick", "brown", "extraordinarily"]"#,
        "tokens=2026-11-30T00:00:00Z tokenizer=bpe token bucket full",
        "hotpot=3 laptop=mac adopt=yes the otp was sent",
        "status_code=500 error_code: 12 zip_code=12345 exit code: 1 verification failed: code 12",
        "account=5 AccountName=x primary_key=id partition_key=7 cache_key=a:b:c monkey=1 key: order-17",
        "API key: missing, the api key: not found",
        "Basic auth failed, basic authentication is required, Basic tier=free, basic: okay",
        "Basic dXNlcm5hbWU is Base64 without a colon",
        "secretary=Ann secretariat: x",
        "see https://discord.com/api/webhooks and https://hooks.slack.com/ and https://api.telegram.org/bots",
        "SKU0123456789 SK hynix dapifoo xai-tools glc_ ops_1 1//2 s.length=3",
        "sha256:0123456789abcdef0123456789abcdef0123456789abcdef0123456789abcdef",
        "trace_id=0123456789abcdef0123456789abcdef id 123456789:3 bot123:x",
        "user@tcp(10.0.0.1:80) a:b@c u/p@h x=1 at main:run@7 http://user@host/",
        "passed=3 failed=1 compass=north authority=x authorized=true pinned=1 ping=3ms",
    ] {
        check(&rules, text, text);
    }
}

#[test]
fn addresses() {
    let rules = preset(RedactPreset::Email);
    check(&rules, "mail to <Bob.O+x@mail.example.co.uk>, ok", "mail to <[redacted: email]>, ok");
    check(&rules, "a@b.de,c@d.com", "[redacted: email],[redacted: email]");
    check(&rules, "GET /a?email=bob%40example.com&b=1%40", "GET /a?email=[redacted: email]&b=1%40");
    for text in ["@here", "a@b", "user@host:22", "x @ y.com", "git@github"] {
        check(&rules, text, text);
    }
}

#[test]
fn credit_cards() {
    let rules = preset(RedactPreset::CreditCard);
    // Numbers that issuers publish for tests.
    for card in [
        "4111111111111111",
        "4111 1111 1111 1111",
        "4111-1111-1111-1111",
        "4222222222222",
        "5555555555554444",
        "2223003122003222",
        "378282246310005",
        "3782 822463 10005",
        "6011111111111117",
        "30569309025904",
        "3530111333300000",
        "6304000000000000",
    ] {
        check(&rules, &format!("paid with {card}."), "paid with [redacted: credit card].");
        for (json, expected) in [
            (format!("{{\"card\":{card}}}"), r#"{"card":"[redacted: credit card]"}"#),
            (format!("{{\"c\":[1, {card}]}}"), r#"{"c":[1, "[redacted: credit card]"]}"#),
            (format!("{{\"c\":\"[1,{card}]\"}}"), r#"{"c":"[1,[redacted: credit card]]"}"#),
            (format!("[1,{card}] is no JSON"), "[1,[redacted: credit card]] is no JSON"),
            (format!("cards [{card}]"), "cards [[redacted: credit card]]"),
        ] {
            check(&rules, &json, expected);
        }
        check(&rules, &format!("pan_{card}"), "pan_[redacted: credit card]");
        check(&rules, &format!("2026-11-22 {card} 17"), "2026-11-22 [redacted: credit card] 17");
    }
    for text in [
        "4111111111111112",
        "1795308768162820305",
        "1795308768162",
        "x4111111111111111",
        "41111111111111110000",
        "4111111111111111a",
        "2026-11-22 00:52:48",
        "id 123e4567-e89b-12d3-a456-426614174000",
        "0000000000000000",
    ] {
        check(&rules, text, text);
    }
}

#[test]
fn own_patterns() {
    check(&own(r"customer-(\d+)", "customer-*"), "customer-17 customer-x", "customer-* customer-x");
    check(&own(r"(?P<head>\w)\w+@", "$head…@"), "bob@ eve@", "b…@ e…@");
    check(&own("a", ""), "banana", "bnn");
    let (kept, done) = redact(&own(r"\b", "|"), b"a b");
    assert_eq!((&*kept, done.changed), (&b"a b"[..], false), "a place hides nothing");
}

/// All presets over a line that is mostly harmless: what is found in bytes that are not UTF-8, too.
#[test]
fn all_presets_and_any_bytes() {
    let all =
        [RedactPreset::CreditCard, RedactPreset::Email, RedactPreset::BearerToken, RedactPreset::KeySecret];
    let rules = Redact { presets: all.to_vec(), patterns: Vec::new() };
    check(
        &rules,
        "a@b.de token=x 4111111111111111 Bearer abcdefg1",
        "[redacted: email] token=[redacted] [redacted: credit card] Bearer [redacted: token]",
    );
    let (found, _) = redact(&rules, b"\xff\xfepassword=\xffabc\xfe next");
    assert_eq!(&*found, b"\xff\xfepassword=[redacted] next");
    let mut rng = Rng::from_env();
    for _ in 0..2_000 {
        let mut text = rng.bytes(200);
        for _ in 0..rng.below(6) {
            let piece: &[u8] = rng.pick(&[
                b"password=",
                b"token:\"",
                b"\\\"",
                b"4111 ",
                b"a@b.c",
                b"://u:p@",
                b"Bearer ",
                b"[{",
            ]);
            let at = rng.below(text.len() + 1);
            text.splice(at..at, piece.iter().copied());
        }
        let (found, done) = redact(&rules, &text);
        assert_eq!(done.changed, *found != *text);
    }
}

/// A secret must not get through because the line is long, wherever it is in the line.
#[test]
fn a_secret_in_a_long_line() {
    let all =
        [RedactPreset::CreditCard, RedactPreset::Email, RedactPreset::BearerToken, RedactPreset::KeySecret];
    let rules = Redact { presets: all.to_vec(), patterns: own("sesame", "*").patterns };
    for at in [0, 65_530, 65_540, 1 << 20] {
        let mut text = "x ".repeat((1 << 20) / 2 + 50).into_bytes();
        text.splice(at..at, *b" password=hunter2 a@b.de sesame 4111111111111111 ");
        let (found, done) = redact(&rules, &text);
        let found = String::from_utf8_lossy(&found);
        assert!(done.changed && !done.limited);
        for secret in ["hunter2", "a@b.de", "sesame", "4111"] {
            assert!(!found.contains(secret), "{secret} at {at}");
        }
        assert!(found.contains("password=[redacted] [redacted: email] * [redacted: credit card]"));
    }
}

/// Each match of this pattern depends on the last byte of the line. The work is counted, and the line is replaced
/// beyond the bound.
#[test]
fn work_is_bounded_and_fails_closed() {
    let rules = own("a.*z|a", "*");
    let text = b"a".repeat(1 << 20);
    let (found, done) = redact(&rules, &text);
    assert_eq!(done, Done { changed: true, limited: true });
    assert!(found.ends_with(TOO_MUCH));
    // Each star is a search over a mebibyte.
    let searches = found.iter().filter(|byte| **byte == b'*').count();
    assert!(searches * text.len() <= WORK_FACTOR * text.len() + text.len(), "{searches}");
    let short = b"a".repeat(1_000);
    let (found, done) = redact(&rules, &short);
    assert_eq!((&*found, done.limited), (&b"*".repeat(1_000)[..], false), "no usual line is cut");
}

/// What begins like a secret again and again costs no more for each byte.
#[test]
fn work_grows_with_the_length_alone() {
    let rules = preset(RedactPreset::KeySecret);
    for unit in [
        "tokens=",
        "tokens=[",
        "tokens={a",
        "tokens:x",
        "tokens=\"",
        "%26pin%3D",
        "pin%3D ",
        "pin%3Da%20",
        "password=('",
        "password=Some(",
        "('cookie', ",
        "[\"cookie\",\"",
        "password N'",
        "by \"",
        "cookie=a; ",
        "-p'",
        "curl -u \"a:",
        "password=''",
        "password=\\\\\"",
        "<password>",
        "--password ",
    ] {
        let of = |len: usize| work::of(|| drop(redact(&rules, unit.repeat(len / unit.len()).as_bytes())));
        let (short, long) = (of(16_000), of(128_000));
        assert!(long <= 10 * short + 1_000_000, "{unit:?}: {short} and {long} bytes looked at");
    }
}

/// A replacement longer than what it replaces does not make lines of unbounded length.
#[test]
fn growth_is_bounded() {
    let text = b"a".repeat(10_000);
    let (found, done) = redact(&own("a", &"x".repeat(64)), &text);
    assert!(done.limited && found.len() <= GROWTH_FACTOR * 10_000 + GROWTH_BYTES + 200, "{}", found.len());
    assert!(!found.contains(&b'a') || found.ends_with(TOO_MUCH));
}
