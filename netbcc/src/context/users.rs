//! Names of users, from /etc/passwd as it was at the start: other sources would have to be asked over a network.

use std::collections::HashMap;
use std::fs::File;
use std::io::Read as _;

/// More of the file is not read.
const MOST_BYTES: u64 = 4 << 20;

/// The names that are known.
#[derive(Default)]
pub(super) struct Users(HashMap<u32, String>);

impl Users {
    pub(super) fn read() -> Self {
        let mut text = Vec::new();
        // Without it users are numbers.
        let _ = File::open("/etc/passwd").map(|file| file.take(MOST_BYTES).read_to_end(&mut text));
        Self::parse(&String::from_utf8_lossy(&text))
    }

    /// `NAME:PASSWORD:UID:…`; of several names of one user the first.
    fn parse(text: &str) -> Self {
        let mut users = HashMap::new();
        for line in text.lines().filter(|line| !line.starts_with(['#', '+', '-'])) {
            let mut words = line.split(':');
            if let (Some(name), Some(Ok(uid))) = (words.next(), words.nth(1).map(str::parse::<u32>)) {
                users.entry(uid).or_insert_with(|| name.to_owned());
            }
        }
        Self(users)
    }

    pub(super) fn name(&self, uid: u32) -> String {
        self.0.get(&uid).cloned().unwrap_or_else(|| uid.to_string())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_user_has_the_first_of_its_names() {
        let users = Users::parse(
            "# x:x:9:\nroot:x:0:0:root:/root:/bin/sh\ntoor:x:0:0::/:\n+nis:x:5::\nbad\nwww:x:33:33:::\n",
        );
        assert_eq!([0, 33, 5, 9].map(|uid| users.name(uid)), ["root", "www", "5", "9"]);
    }
}
