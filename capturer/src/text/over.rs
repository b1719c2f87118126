//! How the log says that a fault has ended. All faults have this one form, so that one search finds the end of any:
//! `over after 12 s: Docker did not answer`.

use crate::text::age::age_text;

/// `what` was wrong for `seconds`.
pub fn over(seconds: u64, what: &str) -> String {
    format!("over after {}: {what}", age_text(seconds))
}

#[cfg(test)]
mod tests {
    use std::path::Path;

    /// Words that would mean an end in another form.
    const OTHER_FORMS: &[&str] = &[
        " again\"",
        " again;",
        "answers again",
        "no longer",
        " is gone",
        "works again",
        "goes on\"",
        "takes a source now",
    ];

    fn look_into(dir: &Path, found: &mut Vec<String>) {
        for entry in std::fs::read_dir(dir).unwrap().flatten() {
            let path = entry.path();
            if path.is_dir() {
                look_into(&path, found);
            } else if path.extension().is_some_and(|ending| ending == "rs") && !path.ends_with("text/over.rs")
            {
                let text = std::fs::read_to_string(&path).unwrap();
                for said in text.split("tracing::info!(").skip(1) {
                    let said = said.split(");").next().unwrap_or_default();
                    let other = OTHER_FORMS.iter().find(|words| said.contains(**words));
                    found.extend(other.map(|words| format!("{}: {words}: {said}", path.display())));
                }
            }
        }
    }

    #[test]
    fn every_end_of_a_fault_has_this_form() {
        assert_eq!(super::over(12, "x"), "over after 12 s: x");
        let mut found = Vec::new();
        look_into(&Path::new(env!("CARGO_MANIFEST_DIR")).join("src"), &mut found);
        assert!(found.is_empty(), "say it with text::over: {found:#?}");
    }
}
