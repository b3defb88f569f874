//! Holds the pages of `docs` to the messages: what the tests provoke must stand there.

use crate::problem::Problem;

const PAGE: &str = include_str!("../../docs/desired-state.md");

/// Where messages stand.
const PAGES: [&str; 5] = [
    PAGE,
    include_str!("../../docs/bonds.md"),
    include_str!("../../docs/control-plane.md"),
    include_str!("../../docs/openstack.md"),
    include_str!("../../docs/sriov.md"),
];

/// What a kept former value adds to a remedy; described once and not with every message.
const KEPT: &str = " (the value read before stays in force)";

/// Fails if no documented message has the words of this problem.
pub(crate) fn assert_documented(problem: &Problem) {
    let remedy = problem.remedy.strip_suffix(KEPT).unwrap_or(&problem.remedy);
    let found = messages().any(|(what, its)| matches(what, &problem.what) && matches(its, remedy));
    assert!(found, "not in docs: {}\n    {remedy}", problem.what);
}

/// The documented messages and their remedies.
fn messages() -> impl Iterator<Item = (&'static str, &'static str)> {
    PAGES.into_iter().flat_map(|page| blocks_of(page, "messages")).flat_map(|block| {
        let lines: Vec<&str> = block.lines().collect();
        let pairs: Vec<_> = lines
            .chunks(2)
            .map(|pair| match pair {
                [what, remedy] if !what.starts_with(' ') && remedy.starts_with("    ") => {
                    (*what, remedy.trim_start())
                }
                _ => panic!("a message and its remedy do not follow each other: {pair:?}"),
            })
            .collect();
        pairs
    })
}

/// The examples in one language of the page on desired state.
pub(crate) fn blocks(language: &str) -> impl Iterator<Item = &'static str> {
    blocks_of(PAGE, language)
}

fn blocks_of(page: &'static str, language: &str) -> impl Iterator<Item = &'static str> + use<> {
    let opening = format!("```{language}\n");
    let parts: Vec<&str> = page.split(&opening).skip(1).collect();
    parts.into_iter().map(|part| part.split("```").next().unwrap_or_default())
}

/// Whether a text is the pattern, each `…` of which stands for anything.
fn matches(pattern: &str, text: &str) -> bool {
    let mut parts = pattern.split('…');
    let Some(mut rest) = text.strip_prefix(parts.next().unwrap_or_default()) else { return false };
    let Some(last) = pattern.contains('…').then(|| parts.next_back().unwrap_or_default()) else {
        return rest.is_empty();
    };
    for part in parts {
        let Some(at) = rest.find(part) else { return false };
        rest = &rest[at + part.len()..];
    }
    rest.ends_with(last)
}

#[test]
fn patterns_match_as_they_read() {
    for (pattern, text, good) in [
        ("a", "a", true),
        ("a", "ab", false),
        ("…", "", true),
        ("… b", "a b", true),
        ("… b", "a c", false),
        ("a … c … e", "a b c d e", true),
        ("a … c … e", "a b d e", false),
    ] {
        assert_eq!(matches(pattern, text), good, "{pattern} / {text}");
    }
    assert!(messages().count() > 50);
}
