//! Charts, drawn as SVG.

use super::html::Html;
use super::words::grouped;

/// Columns side by side, each of several parts on top of each other.
pub(super) struct Columns<'a> {
    /// What it shows, for who does not see it.
    pub(super) title: &'a str,
    /// What is to be seen in it, as a sentence.
    pub(super) description: &'a str,
    /// Distinguishes this drawing from others on the page.
    pub(super) id: &'a str,
    /// Below each column; shown where there is room.
    pub(super) labels: &'a [String],
    /// A column whose label is shown if any are.
    pub(super) anchor: usize,
    /// Each of as many parts as there are classes; the first is at the bottom.
    pub(super) values: &'a [Vec<u64>],
    /// The style of each part.
    pub(super) classes: &'a [&'static str],
    /// Of the drawing, in pixels.
    pub(super) width: u32,
    pub(super) height: u32,
}

const TOP: f64 = 22.0;
const BOTTOM: f64 = 26.0;
const RIGHT: f64 = 4.0;
/// Of a digit or a narrow letter.
const LETTER: f64 = 7.0;
/// Columns are no wider.
const WIDEST: f64 = 48.0;
/// So many columns have their sums above them.
const WITH_SUMS: usize = 10;

/// Labels stand below every column, or below each of so many: as clocks are divided.
const EVERY: [usize; 9] = [1, 2, 3, 4, 6, 12, 24, 48, 96];

/// Draws it.
pub(super) fn columns(html: &mut Html, chart: &Columns<'_>) {
    let Columns { title, description, id, labels, anchor, values, classes, width, height } = chart;
    let [title_id, description_id] = ["title", "desc"].map(|part| format!("{id}-{part}"));
    let sums: Vec<u64> = values.iter().map(|parts| parts.iter().sum()).collect();
    let ticks = ticks(sums.iter().copied().max().unwrap_or(0));
    let top = ticks.last().copied().unwrap_or(1);
    let left = real(ticks.iter().map(|tick| grouped(*tick).len()).max().unwrap_or(1)) * LETTER + 12.0;
    let (width, height) = (f64::from(*width), f64::from(*height));
    let (floor, room) = (height - BOTTOM, width - left - RIGHT);
    let y = |value: u64| floor - (floor - TOP) * real(value) / real(top);
    let pitch = room / real(values.len().max(1));
    let bar = (pitch * 0.72).min(WIDEST);
    let longest_sum = real(sums.iter().map(|sum| grouped(*sum).len()).max().unwrap_or(0)) * LETTER + 6.0;
    let with_sums = values.len() <= WITH_SUMS && longest_sum <= pitch;
    let middle = |at: usize| left + pitch * (real(at) + 0.5);
    let view = format!("0 0 {width} {height}");
    let named = format!("{title_id} {description_id}");
    html.element(
        "svg",
        &[("viewBox", &view), ("role", &"img"), ("aria-labelledby", &named), ("class", &"columns")],
        |html| {
            html.leaf("title", &[("id", &title_id)], title);
            html.leaf("desc", &[("id", &description_id)], description);
            for tick in &ticks {
                let at = place(y(*tick));
                let class = if *tick == 0 { "axis" } else { "grid" };
                line(html, class, [place(left), at.clone(), place(width - RIGHT), at]);
                text(html, "end", left - 8.0, y(*tick) + 4.0, &grouped(*tick));
            }
            for (at, parts) in values.iter().enumerate() {
                let mut below = 0;
                for (part, class) in parts.iter().zip(*classes) {
                    let (low, high) = (y(below), y(below + part));
                    below += part;
                    if *part > 0 {
                        let x = middle(at) - bar / 2.0;
                        rectangle(html, class, [x, high, bar, low - high]);
                    }
                }
                if with_sums && below > 0 {
                    text(html, "middle", middle(at), y(below) - 6.0, &grouped(below));
                }
            }
            let widest =
                real(labels.iter().map(|label| label.chars().count()).max().unwrap_or(0)) * LETTER + 8.0;
            let every =
                EVERY.into_iter().find(|every| real(*every) * pitch >= widest).unwrap_or(labels.len().max(1));
            let mut last = f64::NEG_INFINITY;
            for (at, label) in labels.iter().enumerate().skip(anchor % every).step_by(every) {
                // The last one must not leave the drawing.
                let half = real(label.chars().count()) * LETTER / 2.0;
                let x = middle(at).clamp(half.min(width / 2.0), (width - half).max(width / 2.0));
                if x - last >= widest {
                    text(html, "middle", x, height - 8.0, label);
                    last = x;
                }
            }
        },
    );
}

/// A bar of this share of the longest; what it says stands beside it.
pub(super) fn bar(html: &mut Html, class: &'static str, value: u64, longest: u64) {
    let length = if longest == 0 { 0.0 } else { 100.0 * real(value) / real(longest) };
    // Whatever there is can be seen.
    let length = if value > 0 { length.max(0.5) } else { 0.0 };
    let attributes: super::html::Attributes<'_> = &[
        ("viewBox", &"0 0 100 10"),
        ("preserveAspectRatio", &"none"),
        ("class", &"bar"),
        ("aria-hidden", &"true"),
    ];
    html.element("svg", attributes, |html| {
        rectangle(html, "track", [0.0, 0.0, 100.0, 10.0]);
        if value > 0 {
            rectangle(html, class, [0.0, 0.0, length, 10.0]);
        }
    });
}

/// From 0 to the largest value or a little more, in at most five even steps that are 1, 2 or 5 of a power of ten.
fn ticks(largest: u64) -> Vec<u64> {
    let steps = (0..19).flat_map(|power| [1, 2, 5].map(|step| step * 10_u64.pow(power)));
    let step = steps.into_iter().find(|step| step.saturating_mul(5) >= largest).unwrap_or(u64::MAX);
    (0..=largest.div_ceil(step).max(1)).map(|tick| tick.saturating_mul(step)).collect()
}

/// As a number that can be measured; no chart has larger ones.
fn real(number: impl TryInto<u32>) -> f64 {
    number.try_into().unwrap_or(u32::MAX).into()
}

fn rectangle(html: &mut Html, class: &'static str, [x, y, width, height]: [f64; 4]) {
    let [x, y, width, height] = [x, y, width, height].map(place);
    html.void("rect", &[("class", &class), ("x", &x), ("y", &y), ("width", &width), ("height", &height)]);
}

fn line(html: &mut Html, class: &'static str, [x1, y1, x2, y2]: [String; 4]) {
    html.void("line", &[("class", &class), ("x1", &x1), ("y1", &y1), ("x2", &x2), ("y2", &y2)]);
}

fn text(html: &mut Html, anchor: &'static str, x: f64, y: f64, text: &str) {
    html.leaf("text", &[("text-anchor", &anchor), ("x", &place(x)), ("y", &place(y))], text);
}

/// To a tenth of a pixel.
fn place(number: f64) -> String {
    let text = format!("{number:.1}");
    text.strip_suffix(".0").map_or(text.clone(), str::to_owned)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn scales_have_few_even_steps_from_zero() {
        for (largest, expected) in [
            (0, vec![0, 1]),
            (1, vec![0, 1]),
            (4, vec![0, 1, 2, 3, 4]),
            (6, vec![0, 2, 4, 6]),
            (11, vec![0, 5, 10, 15]),
            (99, vec![0, 20, 40, 60, 80, 100]),
            (1_204, vec![0, 500, 1_000, 1_500]),
        ] {
            assert_eq!(ticks(largest), expected, "{largest}");
        }
        for power in 0..64 {
            let ticks = ticks(1 << power);
            assert!(ticks.len() <= 6 && *ticks.last().unwrap() >= 1 << power, "{ticks:?}");
        }
    }

    /// What is drawn: each element's name and attributes, or text.
    fn drawn(values: &[Vec<u64>], labels: &[String], width: u32) -> String {
        let mut html = Html::default();
        columns(
            &mut html,
            &Columns {
                title: "Blocks <per> day",
                description: "Most on Monday",
                id: "time",
                labels,
                anchor: 0,
                values,
                classes: &["s1", "s2"],
                width,
                height: 148,
            },
        );
        html.into_page()
    }

    #[test]
    fn columns_stand_on_the_axis_and_on_each_other() {
        let labels = ["Mon 16", "Tue 17"].map(str::to_owned);
        let drawing = drawn(&[vec![3, 2], vec![0, 10]], &labels, 223);
        assert!(
            drawing.contains("viewBox=\"0 0 223 148\" role=\"img\" aria-labelledby=\"time-title time-desc\"")
        );
        assert!(drawing.contains("<title id=\"time-title\">Blocks &lt;per&gt; day</title>"));
        assert!(drawing.contains("<desc id=\"time-desc\">Most on Monday</desc>"));
        // 100 pixels for 10: from 122 upwards.
        let bars: Vec<_> =
            drawing.split("<rect ").skip(1).map(|rest| rest.split("/>").next().unwrap()).collect();
        assert_eq!(
            bars,
            [
                "class=\"s1\" x=\"50.2\" y=\"92\" width=\"48\" height=\"30\"",
                "class=\"s2\" x=\"50.2\" y=\"72\" width=\"48\" height=\"20\"",
                "class=\"s2\" x=\"146.8\" y=\"22\" width=\"48\" height=\"100\"",
            ]
        );
        for text in ["Mon 16", "Tue 17", ">5</text>", ">10</text>", ">0</text>"] {
            assert!(drawing.contains(text), "{text}: {drawing}");
        }
    }

    #[test]
    fn labels_do_not_touch_and_nothing_leaves_the_drawing() {
        for (count, width) in [(0, 320), (1, 320), (8, 320), (25, 320), (72, 320), (72, 860), (100, 860)] {
            let labels: Vec<_> = (0..count).map(|at| format!("Day {at:04}")).collect();
            let values: Vec<_> = (0..count).map(|at| vec![at, 1]).collect();
            let drawing = drawn(&values, &labels, width);
            let number = |text: &str, name: &str| {
                let (_, rest) = text.split_once(&format!(" {name}=\"")).unwrap();
                rest.split_once('"').unwrap().0.parse::<f64>().unwrap()
            };
            let texts: Vec<_> =
                drawing.split("<text ").skip(1).filter(|text| text.contains("Day ")).collect();
            let places: Vec<_> = texts.iter().map(|text| number(text, "x")).collect();
            let half = real(8_u32) * LETTER / 2.0;
            assert!(
                places.windows(2).all(|pair| pair[1] - pair[0] >= 2.0 * half),
                "{count} {width}: {places:?}"
            );
            assert!(places.iter().all(|at| (half..=f64::from(width) - half).contains(at)), "{places:?}");
            assert_eq!(places.is_empty(), count == 0);
            for bar in drawing.split("<rect").skip(1) {
                let (x, wide) = (number(bar, "x"), number(bar, "width"));
                assert!(x >= 0.0 && wide > 0.0 && x + wide <= f64::from(width), "{bar}");
            }
        }
    }

    #[test]
    fn whatever_there_is_can_be_seen_in_a_bar() {
        for (value, longest, expected) in
            [(0, 0, None), (0, 9, None), (1, 1_000_000, Some("0.5")), (3, 4, Some("75"))]
        {
            let mut html = Html::default();
            bar(&mut html, "s1", value, longest);
            let drawing = html.into_page();
            let length = drawing.split_once("class=\"s1\" x=\"0\" y=\"0\" width=\"");
            assert_eq!(length.map(|(_, rest)| rest.split('"').next().unwrap()), expected, "{drawing}");
        }
    }
}
