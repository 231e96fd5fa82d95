//! What the kernel dropped: counted each minute from its own counters, and in status and report.

use serde_json::{Value, json};

use crate::support::Pbx;
use crate::support::packets::{FIN, Gate, STRANGERS, SYN, tcp, udp};
use crate::support::pbx::{PHONES, UNVERIFIED};
use crate::support::sip::{login, register};

with_both_variants! {
    each_reason_is_counted_whatever_becomes_of_the_rules
    an_observers_packets_are_apart
    nobody_fails_because_nothing_can_be_written
}

with_both_matchers! {
    packets_of_blocked_accounts_are_counted_also_of_who_was_let_go
}

/// Nothing comes back to a limit meanwhile.
const NO_REFILL: &str = "1/hour";
const STRANGER: [&str; 2] = PHONES[1];
const BLOCKED: &str = "999@a.example.com";

fn pbx(variant: &'static str, mode: &str) -> Pbx {
    let settings = format!(
        "[firewall]\nmode = {mode:?}\nregister-limit = \"{NO_REFILL} burst 2\"\nagents = [\"sundayddr\"]\n\
         restrict = [{{ ports = [\"5080\"], to = [\"office\"] }}]\n\
         [lists.bad]\nkind = \"block\"\nentries = {STRANGER:?}\n\
         [lists.office]\nkind = \"allow\"\nentries = {:?}\n{UNVERIFIED}",
        PHONES[0]
    );
    let pbx = Pbx::new(variant, &settings);
    for call in [pbx.lists(&["refresh"]), pbx.firewall(&["apply", "--yes"])] {
        assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    }
    pbx
}

/// The look of each minute.
#[track_caller]
fn look(pbx: &Pbx) {
    for call in [pbx.firewall(&["restore"]), pbx.block(&["expire"])] {
        assert_eq!((call.code, call.stderr.as_str()), (0, ""));
    }
}

#[track_caller]
fn status(pbx: &Pbx, args: &[&str]) -> String {
    let call = pbx.admin(&[&["status"], args].concat());
    assert!(call.code < 2 && call.stderr.is_empty(), "{call:?}");
    call.stdout
}

#[track_caller]
fn dropped(pbx: &Pbx) -> Value {
    let status: Value = serde_json::from_str(&status(pbx, &["--json"])).unwrap();
    let dropped = &status["dropped"];
    assert_eq!(dropped["all"], dropped["last-day"]);
    dropped["all"].clone()
}

/// One packet of each kind for each family, and two from who is on a block list.
fn attack(gate: &Gate<'_>) {
    for family in [0, 1] {
        let from = STRANGERS[0][family];
        gate.passes(udp(STRANGER[family], 5060, "x"));
        gate.passes(udp(STRANGER[family], 4569, "x"));
        gate.passes(udp(from, 5060, register("User-Agent: sundayddr")));
        gate.passes(udp(from, 5080, "x"));
        gate.passes(tcp(from, 22, SYN | FIN, ""));
    }
}

fn each_reason_is_counted_whatever_becomes_of_the_rules(variant: &'static str) {
    let pbx = pbx(variant, "enforce");
    let gate = Gate::new(&pbx);
    pbx.ban(BLOCKED);
    look(&pbx);
    assert_eq!(dropped(&pbx), json!({"dropped": {}, "observed": {}}));

    // Twice: that a counter began anew is known by its having less.
    attack(&gate);
    attack(&gate);
    for family in [0, 1] {
        assert!(!gate.passes(udp(STRANGERS[1][family], 5060, login(BLOCKED))));
        for _ in 0..5 {
            gate.passes(udp(STRANGERS[2][family], 5060, register("")));
        }
    }
    let first = json!({
        "account": 2, "block-list": 8, "scanner sundayddr": 4, "restriction 5080 to office": 4, "hardening": 4,
        "limit REGISTER": 2, "going-on": 4,
    });
    look(&pbx);
    assert_eq!(dropped(&pbx)["dropped"], first);
    // Nothing counts twice, however often somebody looks, and whatever is read.
    look(&pbx);
    assert_eq!(pbx.firewall(&["apply", "--yes"]).code, 0);
    look(&pbx);
    assert_eq!(dropped(&pbx)["dropped"], first);

    // Counters begin anew, or rules come back after a flush: what comes then is counted.
    let tables = ["iptables", "ip6tables"].map(|family| format!("{family}-{}", pbx.variant));
    for flush in ["-Z", "-F"] {
        for table in &tables {
            pbx.host.shell(&format!("{table} {flush}"));
        }
        if flush == "-F" {
            look(&pbx);
        }
        attack(&gate);
        look(&pbx);
    }
    let all = json!({
        "account": 2, "block-list": 16, "scanner sundayddr": 8, "restriction 5080 to office": 8, "hardening": 8,
        "limit REGISTER": 2, "going-on": 4,
    });
    assert_eq!(dropped(&pbx)["dropped"], all);
    // What a remove takes away has been counted.
    attack(&gate);
    assert_eq!(pbx.firewall(&["remove"]).code, 0);
    assert_eq!(dropped(&pbx)["dropped"]["block-list"], 20);

    let text = status(&pbx, &[]).replace("\n           ", " ");
    assert!(text.contains("packets in ") && text.contains(": 20 by block lists, "), "{text}");
    let metrics = status(&pbx, &["--prometheus", "-"]);
    for sample in [
        "ringfence_dropped_packets_total{reason=\"block-list\",name=\"\",mode=\"enforce\"} 20\n",
        "ringfence_dropped_packets_total{reason=\"limit\",name=\"REGISTER\",mode=\"enforce\"} 2\n",
        "# TYPE ringfence_dropped_packets_total counter\n",
    ] {
        assert!(metrics.contains(sample), "{sample}: {metrics}");
    }
    let report = pbx.admin(&["report", "--json"]).stdout;
    let report: Value = serde_json::from_str(&report).unwrap();
    assert_eq!(
        report["dropped"]["dropped"]["reasons"][0],
        json!({"kind": "block-list", "name": "", "packets": 20})
    );
    assert_eq!(report["dropped"]["observed"]["packets"], 0);
    let columns = report["dropped"]["dropped"]["columns"].as_array().unwrap();
    assert_eq!(columns.last().unwrap()["packets"]["block-list"], 20, "{columns:?}");
    let of_customer = pbx.admin(&["report", "--json", "-d", "a.example.com"]).stdout;
    assert!(of_customer.contains("\"dropped\": null"), "{of_customer}");
}

fn packets_of_blocked_accounts_are_counted_also_of_who_was_let_go(matcher: &'static str) {
    let pbx = Pbx::new(if matcher == "bpf" { "bpf" } else { "nft" }, UNVERIFIED);
    let gate = Gate::new(&pbx);
    pbx.ban(BLOCKED);
    look(&pbx);
    let tries = |count: usize| {
        for at in 0..count {
            assert!(!gate.passes(udp(STRANGERS[at % 2][at % 2], 5060, login(BLOCKED))));
        }
    };
    let counted = || dropped(&pbx)["dropped"]["account"].as_u64().unwrap_or(0);
    tries(5);
    look(&pbx);
    look(&pbx);
    assert_eq!(counted(), 5);
    tries(3);
    pbx.unban(BLOCKED);
    look(&pbx);
    assert_eq!(counted(), 8);
    pbx.ban(BLOCKED);
    tries(2);
    look(&pbx);
    assert_eq!(counted(), 10);
}

fn an_observers_packets_are_apart(variant: &'static str) {
    let pbx = pbx(variant, "observe");
    let gate = Gate::new(&pbx);
    look(&pbx);
    attack(&gate);
    look(&pbx);
    look(&pbx);
    let all = dropped(&pbx);
    assert_eq!(all["dropped"], json!({}));
    for (reason, packets) in [("block-list", 4), ("scanner sundayddr", 2), ("hardening", 2)] {
        assert_eq!(all["observed"][reason], packets, "{all}");
    }
    let metrics = status(&pbx, &["--prometheus", "-"]);
    assert!(metrics.contains("{reason=\"block-list\",name=\"\",mode=\"observe\"} 4\n"), "{metrics}");
}

fn nobody_fails_because_nothing_can_be_written(variant: &'static str) {
    let pbx = pbx(variant, "enforce");
    let drops = pbx.world.path("state/drops");
    std::fs::remove_dir_all(&drops).unwrap();
    std::fs::write(&drops, "").unwrap();
    for tables in ["iptables", "ip6tables"] {
        pbx.host.shell(&format!("{tables}-{} -F RINGFENCE-KNOWN", pbx.variant));
    }
    let restored = pbx.firewall(&["restore"]);
    assert_eq!((restored.code, restored.stderr.lines().count()), (0, 1), "{restored:?}");
    assert!(restored.stderr.contains("dropped packets cannot be counted in "), "{restored:?}");
    assert_eq!(pbx.firewall(&["verify"]).code, 0);
    let report = pbx.admin(&["report", "--html", "-"]);
    assert!(report.code == 1 && report.stdout.contains("Dropped packets: cannot read "), "{}", report.stderr);
    std::fs::remove_file(&drops).unwrap();

    // One that is damaged is begun anew, and that is said once.
    look(&pbx);
    std::fs::write(drops.join("now.json"), "{").unwrap();
    let text = status(&pbx, &[]).replace("\n  ", " ");
    assert!(text.contains("the packets that were dropped: not known"), "{text}");
    let restored = pbx.firewall(&["restore"]);
    assert!(restored.code == 0 && restored.stderr.contains("was damaged"), "{restored:?}");
    look(&pbx);
}
