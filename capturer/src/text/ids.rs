//! Containers' IDs in a text that people read.

/// Length of an ID in hexadecimal digits.
const DIGITS: usize = 64;

/// The text with each ID replaced by what `shown` returns for it.
pub(crate) fn with_ids(text: &str, shown: impl Fn(&str) -> &str) -> String {
    let mut rest = text;
    let mut written = String::with_capacity(text.len());
    while !rest.is_empty() {
        let digits = rest.bytes().take_while(u8::is_ascii_hexdigit).count();
        let other = rest[digits..].find(|c: char| c.is_ascii_hexdigit()).map_or(rest.len(), |at| digits + at);
        written.push_str(if digits == DIGITS { shown(&rest[..digits]) } else { &rest[..digits] });
        written.push_str(&rest[digits..other]);
        rest = &rest[other..];
    }
    written
}

/// Digits of an ID that `docker ps` shows.
const DIGITS_SHOWN: usize = 12;

/// A sentence of the agent, shortened: IDs in twelve digits, as `docker ps` shows them, and paths of the Engine's API
/// without their queries. An ID in the path of a file stays whole: nothing is at a path that was shortened.
pub(crate) fn briefly(text: &str) -> String {
    let mut is_asked = false;
    let words = text.split(' ').map(|word| {
        let (path, query) = word.split_once('?').map_or((word, None), |(path, query)| (path, Some(query)));
        let is_of_api = word.starts_with('/') && (is_asked || query.is_some());
        is_asked = matches!(word, "GET" | "POST");
        match (is_of_api, word.contains('/')) {
            (true, _) => with_ids(path, |id| &id[..DIGITS_SHOWN]),
            (false, true) => word.to_owned(),
            (false, false) => with_ids(word, |id| &id[..DIGITS_SHOWN]),
        }
    });
    words.collect::<Vec<_>>().join(" ")
}

#[cfg(test)]
mod tests {
    use super::*;

    /// A row once had room only for the ID, and the text behind it was never seen.
    #[test]
    fn ids_and_queries_are_brief() {
        let id = format!("fa00{}", "0".repeat(60));
        let check = |long: &str, brief: &str| assert_eq!(briefly(long), brief);
        check(
            &format!("no answer to GET /containers/{id}/logs?stdout=1&since=17.2 within 5 s"),
            "no answer to GET /containers/fa0000000000/logs within 5 s",
        );
        check(
            &format!("descriptor 7 of stream:container:{id}, "),
            "descriptor 7 of stream:container:fa0000000000, ",
        );
        check(
            &format!("no answer to GET /containers/{id}/json"),
            "no answer to GET /containers/fa0000000000/json",
        );
        // The page said of such a path "Make it".
        for path in
            [format!("/var/lib/docker/containers/{id}/{id}-json.log:"), format!("file:/my logs/{id}/x;")]
        {
            let text = format!("1 source can't be read: {path} no such directory; container {id}");
            check(
                &text,
                &format!("1 source can't be read: {path} no such directory; container fa0000000000"),
            );
        }
        check("why? 0123456789abcdef über /a/b", "why? 0123456789abcdef über /a/b");
        check("", "");
    }

    #[test]
    fn only_a_run_of_sixty_four_digits_is_an_id() {
        let id = "0123456789abcdef".repeat(4);
        let short = |text: &str| with_ids(text, |id| &id[..12]);
        assert_eq!(short(&format!("é {id}: {id}")), "é 0123456789ab: 0123456789ab");
        assert_eq!(short("abc é 12 x"), "abc é 12 x");
        assert_eq!(short(&format!("{id}0")), format!("{id}0"));
        assert_eq!(short(""), "");
    }
}
