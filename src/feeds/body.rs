//! A body as it came: unpacked where it is packed, and never larger than allowed.

use std::borrow::Cow;
use std::io::Read;

use anyhow::{Context, bail};
use bytesize::ByteSize;
use flate2::read::MultiGzDecoder;
use lzma_rust2::XzReader;

const GZIP: &[u8] = &[0x1f, 0x8b];
const XZ: &[u8] = &[0xfd, b'7', b'z', b'X', b'Z', 0];

/// xz -9 needs 64 MiB for its dictionary, in KiB.
const XZ_MEMORY: u32 = 80 << 10;

/// The content of `body`: gzip and xz are known by their first bytes. An error says what is wrong with it.
pub fn unpack(body: &[u8], limit: ByteSize) -> anyhow::Result<Cow<'_, [u8]>> {
    if body.starts_with(GZIP) {
        return read(MultiGzDecoder::new(body), limit).context("cannot unpack it (gzip)").map(Cow::Owned);
    }
    if body.starts_with(XZ) {
        let reader = XzReader::new_mem_limit(body, true, XZ_MEMORY);
        return read(reader, limit).context("cannot unpack it (xz)").map(Cow::Owned);
    }
    Ok(Cow::Borrowed(body))
}

fn read(reader: impl Read, limit: ByteSize) -> anyhow::Result<Vec<u8>> {
    let mut content = Vec::new();
    reader.take(limit.as_u64() + 1).read_to_end(&mut content)?;
    if content.len() as u64 > limit.as_u64() {
        bail!("it is larger than max-size ({limit})");
    }
    Ok(content)
}
