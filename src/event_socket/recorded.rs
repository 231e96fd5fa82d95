//! The recorded sessions of `tests/data/esl`.

use std::path::Path;

use serde::Deserialize;

/// What one side sent at once.
#[derive(Deserialize)]
pub(crate) struct Chunk {
    from: String,
    #[serde(default)]
    data: String,
}

impl Chunk {
    pub(crate) fn bytes(&self) -> &[u8] {
        self.data.as_bytes()
    }
}

/// What the server sent in the session of this name.
pub(crate) fn chunks(name: &str) -> Vec<Chunk> {
    let path = Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/esl").join(name);
    let text = std::fs::read_to_string(path).unwrap();
    let chunks = text.lines().map(|line| serde_json::from_str::<Chunk>(line).unwrap());
    chunks.filter(|chunk| chunk.from == "server").collect()
}

/// The names of all sessions, and the bytes that the server sent.
pub(crate) fn streams() -> Vec<(String, Vec<u8>)> {
    let dir = std::fs::read_dir(Path::new(env!("CARGO_MANIFEST_DIR")).join("tests/data/esl")).unwrap();
    let mut names: Vec<_> = dir.map(|entry| entry.unwrap().file_name().into_string().unwrap()).collect();
    names.sort();
    let stream = |name: &str| chunks(name).iter().flat_map(|chunk| chunk.bytes().to_vec()).collect();
    names.into_iter().map(|name| (name.clone(), stream(&name))).collect()
}
