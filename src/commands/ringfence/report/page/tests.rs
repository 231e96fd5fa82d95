use jiff::tz::TimeZone;
use jiff::{SignedDuration, Timestamp};

use super::*;
use crate::evidence::Decision;
use crate::evidence::past::Past;
use crate::report::Gathering;
use crate::report::axis::Axis;
use crate::report::dropped::Adding;

const NOW: Timestamp = Timestamp::constant(1_795_183_743, 0);

/// The page of a week with these decisions: tool, subject, decision, reason.
fn page(decisions: &[[&str; 4]], knows: bool) -> String {
    page_with(decisions, knows, None)
}

/// Reasons, and packets of each.
type Counted<'a> = &'a [(&'a str, u64)];

/// The same with packets of these reasons, thirty hours ago, and the begin of their record.
fn page_with(
    decisions: &[[&str; 4]],
    knows: bool,
    packets: Option<([Counted<'_>; 2], Option<Timestamp>)>,
) -> String {
    let since = NOW - SignedDuration::from_hours(7 * 24);
    let axis = Axis::new(since, NOW, &TimeZone::UTC).unwrap();
    let mut gathering = Gathering::new(since, NOW, axis, None);
    for [tool, subject, decision, reason] in decisions {
        let decision = Decision::new(tool, subject, decision, reason, "sip");
        gathering.decision(&Past { when: NOW - SignedDuration::from_hours(30), decision, count: 1 });
    }
    if let Some(([dropped, observed], begun)) = packets {
        let totals = |packets: &[(&str, u64)]| {
            packets.iter().map(|(reason, packets)| (reason.parse().unwrap(), *packets)).collect()
        };
        let totals = drops::Totals { dropped: totals(dropped), observed: totals(observed) };
        let mut adding = Adding::new(since, NOW, &TimeZone::UTC).unwrap();
        adding.hour(&drops::Hour::new(NOW - SignedDuration::from_hours(30), totals));
        gathering.dropped(adding.finish(begun));
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
fn packets_are_said_as_far_as_they_were_counted() {
    let week_ago = Some(NOW - SignedDuration::from_hours(8 * 24));
    for (decisions, packets, begun, expected) in [
        (&[][..], &[][..], None, &["nothing had to be blocked", "Nothing is recorded yet: "][..]),
        (&[], &[], week_ago, &["nothing had to be blocked", "No packet was dropped in this time."]),
        (
            &[],
            &[("block-list", 1)],
            week_ago,
            &["<p class=\"answer\">In the last 7 days, 1 packet was dropped.</p>"],
        ),
        (
            &[BAN],
            &[("block-list", 1_200), ("limit REGISTER", 34), ("scanner <b>", 1)],
            Some(NOW - SignedDuration::from_hours(48)),
            &[
                "In the last 7 days, 1 address was blocked and 1,235 packets dropped.",
                "Recorded since 18 Nov 2026, 14:09.",
                "<title id=\"dropped-block-list-title\">Block lists: packets per day</title>",
                "Columns. In all, 1,200. Most in the day from Thu 19 Nov 2026: 1,200.",
                "<bdi>REGISTER</bdi><small>Above a limit</small>",
                "<bdi>&lt;b&gt;</bdi><small>Scanners</small>",
                "<th scope=\"row\">Thu 19 Nov 2026</th><td>Block lists</td><td class=\"number\">1,200</td>",
            ],
        ),
    ] {
        let page = page_with(decisions, true, Some(([packets, &[]], begun)));
        for said in expected {
            assert!(page.contains(said), "{said}: {page}");
        }
        assert!(!page.contains("had the mode not been"), "{page}");
    }
    let page = page_with(&[], true, Some(([&[], &[("account", 3)]], week_ago)));
    assert!(page.contains("nothing had to be blocked") && !page.contains("No packet"), "{page}");
    assert!(page.contains("id=\"observed-account-title\""), "{page}");
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
