//! What must not be shown of a source, even where the source itself quotes it.

use reqwest::Url;

/// A shorter part of a path or query opens nothing, and may be any word.
const SHORTEST: usize = 6;

/// Texts that are replaced wherever foreign text is shown.
#[derive(Clone, Debug, Default)]
pub struct Secrets(Vec<String>);

impl Secrets {
    /// Users, passwords, queries, and parts of paths.
    #[must_use]
    pub fn of<'a>(urls: impl IntoIterator<Item = &'a Url>) -> Self {
        let mut secrets = Self::default();
        for url in urls {
            secrets.add(url.username());
            secrets.add(url.password().unwrap_or_default());
            let raw = url.query().unwrap_or_default().split(['&', '=']).map(str::to_owned);
            let read = url.query_pairs().map(|(_, value)| value.into_owned());
            let path = url.path().split('/').map(str::to_owned);
            raw.chain(read)
                .chain(path)
                .filter(|text| text.len() >= SHORTEST)
                .for_each(|text| secrets.add(&text));
        }
        secrets
    }

    /// This too.
    pub fn add(&mut self, text: &str) {
        if !text.is_empty() {
            self.0.push(text.to_owned());
            // One may be a part of another.
            self.0.sort_by_key(|text| std::cmp::Reverse(text.len()));
        }
    }

    /// The text without them.
    #[must_use]
    pub fn hide(&self, text: &str) -> String {
        self.0.iter().fold(text.to_owned(), |text, secret| text.replace(secret.as_str(), "..."))
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn hides_what_a_url_may_keep_secret() {
        let url: Url =
            "https://bob:pa%40ss@lists.example/v2/3fb2a9c1/all?key=a%2Fb%2Fc%2Fd&list=voip".parse().unwrap();
        let mut secrets = Secrets::of([&url]);
        secrets.add("");
        assert_eq!(
            secrets.hide("bob pa%40ss /v2/3fb2a9c1/all?key=a%2Fb%2Fc%2Fd a/b/c/d voip"),
            "... ... /v2/.../all?key=... ... voip"
        );
    }
}
