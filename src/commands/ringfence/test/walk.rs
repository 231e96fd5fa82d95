//! `ringfence test --walk`.

use super::Args;
use crate::config::Config;
use crate::exit::Exit;

pub(super) fn run(_: &Config, _: &Args) -> anyhow::Result<Exit> {
    anyhow::bail!("not yet")
}
