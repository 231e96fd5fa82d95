use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::evidence::Decision;
use crate::evidence::past::Past;
use crate::report::Gathering;
use crate::report::axis::Axis;

const NOW: Timestamp = Timestamp::constant(1_795_183_743, 0);

/// The page of a week with these decisions: tool, subject, decision, reason.
fn page(decisions: &[[&str; 4]], knows: bool) -> String {
    let since = NOW - SignedDuration::from_hours(7 * 24);
    let axis = Axis::new(since, NOW, &TimeZone::UTC).unwrap();
    let mut gathering = Gathering::new(since, NOW, axis, None);
    for [tool, subject, decision, reason] in decisions {
        let decision = Decision::new(tool, subject, decision, reason, "sip");
        gathering.decision(&Past { when: NOW - SignedDuration::from_hours(30), decision, count: 1 });
    }
    let (report, clock) = (gathering.finish(|_| None), Clock(TimeZone::UTC));
    let page = Page {
        host: "pbx1",
        report: &report,
        clock: &clock,
        faults: &[],
        sources: &[],
        knows_failures: knows,
        knows_decisions: knows,
    };
    page.render()
}

const BAN: [&str; 4] = ["ringfence-ban", "203.0.113.1", "ban", "jail"];
const BLOCK: [&str; 4] = ["ringfence-block", "9@a", "block", "unknown-account"];
const DEVICE: [&str; 4] = ["ringfence-block", "9@a,192.0.2.1", "block", "failing-device"];
const KEEP: [&str; 4] = ["ringfence-ignore", "192.0.2.1", "keep", "registered"];
const BACK: [&str; 4] = ["ringfence-block", "9@a", "unblock", "by-hand"];

#[test]
fn the_answer_is_one_sentence() {
    for (decisions, expected) in [
        (&[][..], "In the last 7 days, nothing had to be blocked."),
        (&[BAN], "In the last 7 days, 1 address was blocked."),
        (
            &[BLOCK, BLOCK, BAN, BAN],
            "In the last 7 days, 1 address and 1 account that does not exist were blocked.",
        ),
        (
            &[BAN, BLOCK, DEVICE, KEEP, BACK],
            "In the last 7 days, 1 address, 1 account that does not exist and 1 failing device were blocked; \
             1 known address kept working although phones there failed; 1 decision was taken back.",
        ),
        (
            &[KEEP],
            "In the last 7 days, nothing had to be blocked; 1 known address kept working although phones there failed.",
        ),
    ] {
        let page = page(decisions, true);
        assert!(page.contains(&format!("<p class=\"answer\">{expected}</p>")), "{page}");
    }
    let page = page(&[], false);
    assert!(page.contains("What was blocked in the last 7 days cannot be said."), "{page}");
    assert!(page.contains("could not be read") && !page.contains("<dd class=\"value\">0</dd>"), "{page}");
}

#[test]
fn the_same_figures_are_the_same_page() {
    let decisions = [BAN, BLOCK, DEVICE, KEEP, BACK];
    let first = page(&decisions, true);
    assert_eq!(first, page(&decisions, true));
    assert!(first.contains("<th scope=\"row\">Thu 19 Nov 2026</th><td class=\"number\">1</td>"), "{first}");
    assert!(first.contains("Most in the day from Thu 19 Nov 2026: 3."), "{first}");
}

#[test]
fn the_policy_lets_only_our_style_in() {
    let page = page(&[BAN], true);
    let (_, rest) = page.split_once("style-src &apos;sha256-").unwrap();
    let (hash, rest) = rest.split_once("&apos;").unwrap();
    let (_, rest) = rest.split_once("<style>").unwrap();
    let (style, _) = rest.split_once("</style>").unwrap();
    assert_eq!(hash, BASE64_STANDARD.encode(Sha256::digest(style)));
    assert!(page.contains("content=\"default-src &apos;none&apos;; style-src"), "{page}");
    // So it is XML, too.
    assert!(!style.contains(['<', '&']) && !style.contains("url(") && !style.contains("@import"));
    assert!(page.find("Content-Security-Policy") < page.find("<style>"));
    for never in ["<script", "<link", "<img", "href=", "src=", " style=", "http:", "https:"] {
        assert!(!page.contains(never), "{never}");
    }
}

/// The colours of a scheme, by their names.
fn colours(style: &str) -> Vec<(&str, [u8; 3])> {
    let part = |text: &str, at: usize| u8::from_str_radix(&text[at..at + 2], 16).unwrap();
    style
        .split(';')
        .filter_map(|line| line.rsplit_once("--")?.1.split_once(": #"))
        .map(|(name, code)| (name, [part(code, 0), part(code, 2), part(code, 4)]))
        .collect()
}

/// WCAG 2.2, contrast ratio.
fn contrast(one: [u8; 3], other: [u8; 3]) -> f64 {
    let luminance = |colour: [u8; 3]| {
        let linear = colour.map(|part| {
            let part = f64::from(part) / 255.0;
            if part <= 0.04045 { part / 12.92 } else { ((part + 0.055) / 1.055).powf(2.4) }
        });
        0.2126 * linear[0] + 0.7152 * linear[1] + 0.0722 * linear[2]
    };
    let (one, other) = (luminance(one), luminance(other));
    (one.max(other) + 0.05) / (one.min(other) + 0.05)
}

#[test]
fn everybody_can_read_it() {
    let schemes: Vec<_> =
        STYLE.split(":root {").skip(1).map(|rest| rest.split('}').next().unwrap()).collect();
    assert_eq!(schemes.len(), 3, "light, dark and on paper");
    for scheme in schemes {
        let colours = colours(scheme);
        let of = |name: &str| colours.iter().find(|(known, _)| *known == name).unwrap().1;
        for ground in ["page", "card"] {
            for text in ["ink", "soft", "warn"] {
                let contrast = contrast(of(text), of(ground));
                assert!(contrast >= 4.5, "{text} on {ground}: {contrast:.1}");
            }
        }
        for part in ["s1", "s2", "s3"] {
            for ground in ["page", "track"] {
                let contrast = contrast(of(part), of(ground));
                assert!(
                    contrast >= if ground == "page" { 3.0 } else { 2.5 },
                    "{part} on {ground}: {contrast:.1}"
                );
            }
        }
    }
}
