//! Rules of nftables as nft(8) writes them, from what `nft -j` prints.

use serde_json::Value;

/// A rule; what is not known here by its name alone.
pub(super) fn rule(rule: &[Value]) -> String {
    let expressions = rule.iter().filter_map(Value::as_object).flatten();
    let all: Vec<String> = expressions.map(|(name, value)| expression(name, value)).collect();
    all.join(" ")
}

pub(super) fn expression(name: &str, value: &Value) -> String {
    let target = || value["target"].as_str().unwrap_or_default();
    match name {
        "match" => {
            let (left, right) = (self::value(&value["left"]), self::value(&value["right"]));
            match value["op"].as_str().unwrap_or_default() {
                "==" | "in" => format!("{left} {right}"),
                op => format!("{left} {op} {right}"),
            }
        }
        "limit" => {
            format!("limit rate {}{}", over(value), limit(value).0)
        }
        "ct count" => format!("ct count {}{}", over(value), value["val"]),
        "quota" => {
            let unit = value["val_unit"].as_str().unwrap_or("bytes");
            format!("quota {}{} {unit}", over(value), value["val"])
        }
        "set" => {
            let text = |key: &str| value[key].as_str().unwrap_or_default();
            let all = value["stmt"].as_array().into_iter().flatten().filter_map(Value::as_object).flatten();
            let all: Vec<_> = [self::value(&value["elem"])]
                .into_iter()
                .chain(all.map(|(name, value)| expression(name, value)))
                .collect();
            format!("{} {} {{ {} }}", text("op"), text("set"), all.join(" "))
        }
        "vmap" => format!("{} vmap {}", self::value(&value["key"]), self::value(&value["data"])),
        "jump" | "goto" => format!("{name} {}", target()),
        // What it sets.
        "mangle" => format!("{} set {}", self::value(&value["key"]), self::value(&value["value"])),
        name => name.to_owned(),
    }
}

fn over(limit: &Value) -> &'static str {
    if limit["inv"] == true { "over " } else { "" }
}

/// The rate of a limit, and whether it is exceeded that matches.
pub(super) fn limit(limit: &Value) -> (String, bool) {
    let unit = limit["rate_unit"].as_str().filter(|unit| *unit != "packets");
    let unit = unit.map_or_else(String::new, |unit| format!(" {unit}"));
    (format!("{}{unit}/{}", limit["rate"], limit["per"].as_str().unwrap_or("second")), limit["inv"] == true)
}

/// What is asked about, or what it must be.
pub(super) fn value(value: &Value) -> String {
    let listed = |all: &[Value], between: &str| all.iter().map(self::value).collect::<Vec<_>>().join(between);
    match value {
        Value::String(text) => text.clone(),
        // Of a map: what leads to what.
        Value::Array(pair) => listed(pair, ","),
        Value::Object(object) => {
            let Some((kind, inner)) = object.iter().next() else { return String::new() };
            let several = inner.as_array().map(Vec::as_slice).unwrap_or_default();
            let text = |key: &str| inner[key].as_str().unwrap_or_default();
            match kind.as_str() {
                "payload" if inner["protocol"].is_string() => {
                    format!("{} {}", text("protocol"), text("field"))
                }
                "payload" => format!("@{},{},{}", text("base"), inner["offset"], inner["len"]),
                "meta" if ["iif", "iifname", "oif", "oifname"].contains(&text("key")) => {
                    text("key").to_owned()
                }
                "meta" | "ct" => format!("{kind} {}", text("key")),
                "exthdr" => format!("exthdr {} {}", text("name"), text("field")).trim_end().to_owned(),
                "fib" => format!("fib {} {}", self::value(&inner["flags"]), text("result")),
                "set" => format!("{{ {} }}", entries(inner)),
                "prefix" => format!("{}/{}", self::value(&inner["addr"]), inner["len"]),
                "range" => listed(several, "-"),
                "concat" => listed(several, " . "),
                "&" | "|" | "^" | "<<" | ">>" => listed(several, &format!(" {kind} ")),
                "elem" => self::value(&inner["val"]),
                "jump" | "goto" => expression(kind, inner),
                kind => kind.to_owned(),
            }
        }
        other => other.to_string(),
    }
}

/// What stands in `{ }`: values, or those of a map with what they lead to.
fn entries(set: &Value) -> String {
    let entry = |entry: &Value| match entry.as_array().map(Vec::as_slice) {
        Some([key, leads_to]) => format!("{} : {}", value(key), value(leads_to)),
        _ => value(entry),
    };
    match set.as_array() {
        Some(all) => all.iter().map(entry).collect::<Vec<_>>().join(", "),
        None => entry(set),
    }
}
