//! Lists of processes, users and names of threads.

use std::fs;

use netbcc_common::Comm;

use super::{Word, guess, list};

/// Numbers of processes or users as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct IdList(pub(super) Vec<Word<(u32, u32)>>);

impl IdList {
    /// The words of all lists.
    pub(super) fn together<'l>(lists: impl Iterator<Item = &'l Self>) -> Self {
        Self(lists.flat_map(|list| list.0.iter().copied()).collect())
    }

    /// Whether it is empty: everything is kept.
    pub(super) fn is_empty(&self) -> bool {
        self.0.is_empty()
    }

    /// Puts another number in the place of each single one. A range has none.
    ///
    /// # Errors
    /// `other` knows none.
    pub fn translate<E>(
        &mut self,
        mut other: impl FnMut(u32, u32) -> Result<(u32, u32), E>,
    ) -> Result<(), E> {
        self.0.iter_mut().try_for_each(|word| other(word.what.0, word.what.1).map(|what| word.what = what))
    }

    /// What is kept: ranges in order, which may overlap.
    pub fn kept(&self) -> Vec<(u32, u32)> {
        let of = |excludes| self.0.iter().filter(move |word| word.excludes == excludes).map(|word| word.what);
        let mut kept: Vec<(u32, u32)> = of(false).collect();
        if kept.is_empty() {
            kept.push((0, u32::MAX));
        }
        for (first, last) in of(true) {
            let parts = |(low, high): (u32, u32)| {
                let below = (first > low).then(|| (low, high.min(first.saturating_sub(1))));
                let above = (last < high).then(|| (low.max(last.saturating_add(1)), high));
                below.into_iter().chain(above)
            };
            kept = kept.into_iter().flat_map(parts).collect();
        }
        kept.sort_unstable();
        kept
    }
}

/// The prefixes of 32 bits that have just the numbers of this range.
pub fn prefixes((low, high): (u32, u32)) -> Vec<(u32, u32)> {
    let mut prefixes = Vec::new();
    let (mut next, end) = (u64::from(low), u64::from(high) + 1);
    while next < end {
        let bits = next.trailing_zeros().min((end - next).ilog2()).min(32);
        prefixes.push((32 - bits, u32::try_from(next).unwrap_or_default()));
        next += 1 << bits;
    }
    prefixes
}

/// Parses a list of processes.
pub fn pid_list(text: &str) -> Result<IdList, String> {
    let what = format!("a process id, which is 1 to {}", i32::MAX);
    list(text, |word| range(word, &what, |pid| pid != 0 && i32::try_from(pid).is_ok())).map(IdList)
}

/// Parses a list of processes, or 0 for all.
pub fn pid_list_or_all(text: &str) -> Result<IdList, String> {
    if text == "0" { Ok(IdList::default()) } else { pid_list(text) }
}

/// Parses a list of users.
pub fn uid_list(text: &str) -> Result<IdList, String> {
    // The largest number means "no user" to the kernel.
    let what = format!("a user id, which is 0 to {}", u32::MAX - 1);
    let user = |word: &str| {
        range(word, &what, |uid| uid != u32::MAX)
            .map_err(|why| if why.contains("did you mean") { why } else { why + &guess(uid_of(word)) })
    };
    list(text, user).map(IdList)
}

fn range(word: &str, what: &str, allows: impl Fn(u32) -> bool) -> Result<(u32, u32), String> {
    let number = |text: &str| text.trim().parse().ok().filter(|&number| allows(number));
    let (low, high) = word.split_once('-').unwrap_or((word, word));
    match (number(low), number(high)) {
        (Some(low), Some(high)) if low <= high => Ok((low, high)),
        (Some(low), Some(high)) => {
            Err(format!("the range '{word}' is empty{}", guess(Some(format!("{high}-{low}")))))
        }
        _ => Err(format!("'{word}' is neither {what}, nor a range as 1000-1999")),
    }
}

/// The number of the user whose name was typed.
fn uid_of(name: &str) -> Option<String> {
    let users = fs::read_to_string("/etc/passwd").ok()?;
    let fields = users.lines().map(|line| line.split(':').collect::<Vec<_>>());
    fields
        .filter(|fields| fields.first() == Some(&name))
        .find_map(|fields| Some((*fields.get(2)?).to_owned()))
}

/// Names of threads as they were typed.
#[derive(Clone, Debug, Default, PartialEq, Eq)]
pub struct NameList(pub(super) Vec<Word<Comm>>);

/// The names of threads to keep.
#[derive(Clone, Debug, PartialEq, Eq)]
pub struct Names {
    /// Each that is named, and whether it is kept.
    pub named: Vec<(Comm, bool)>,
    /// Whether others are kept.
    pub others: bool,
}

impl Names {
    pub(super) fn of(words: &[Word<Comm>]) -> Self {
        let excluded = |name: &Comm| words.iter().any(|word| word.excludes && word.what == *name);
        let mut named: Vec<_> = words.iter().map(|word| (word.what, !excluded(&word.what))).collect();
        named.sort_unstable();
        named.dedup();
        Self { named, others: words.iter().all(|word| word.excludes) }
    }

    /// Whether no name is kept.
    pub(super) fn is_nothing(&self) -> bool {
        !self.others && self.named.iter().all(|(_, kept)| !kept)
    }
}

/// Parses a list of names of threads. The kernel keeps the first 15 bytes of a name.
pub fn name_list(text: &str) -> Result<NameList, String> {
    let name = |word: &str| {
        if word.contains('\0') {
            return Err("a name has no NUL".to_owned());
        }
        let mut comm = [0; 16];
        comm.iter_mut().take(15).zip(word.bytes()).for_each(|(to, byte)| *to = byte);
        Ok(comm)
    };
    list(text, name).map(NameList)
}

#[cfg(test)]
mod tests {
    use proptest::prelude::*;

    use super::*;

    #[test]
    fn lists_of_numbers_keep_what_they_name() {
        for (list, kept) in [
            ("181", &[(181, 181)][..]),
            ("5, 3-9,!4", &[(3, 3), (5, 5), (5, 9)]),
            ("!1", &[(0, 0), (2, u32::MAX)]),
            ("1-9,!1-9", &[]),
            ("! 2-2147483647", &[(0, 1), (2_147_483_648, u32::MAX)]),
        ] {
            assert_eq!(pid_list(list).unwrap().kept(), kept, "{list}");
        }
        assert_eq!(uid_list("0,4294967294").unwrap().kept(), [(0, 0), (u32::MAX - 1, u32::MAX - 1)]);
        for none in ["", " "] {
            assert!(pid_list(none).unwrap().is_empty() && uid_list(none).unwrap().is_empty(), "{none:?}");
        }
        assert!(pid_list_or_all("0").unwrap().is_empty());
    }

    #[test]
    fn wrong_numbers_are_refused_with_the_nearest_right_one() {
        let pid = "is neither a process id, which is 1 to 2147483647, nor a range as 1000-1999";
        for (list, why) in [
            ("0", format!("'0' {pid}")),
            ("1,0", format!("'0' {pid}")),
            ("2147483648", format!("'2147483648' {pid}")),
            ("nginx", format!("'nginx' {pid}")),
            ("1,", "a word of the list is empty".into()),
            ("9-3", "the range '9-3' is empty; did you mean '3-9'?".into()),
        ] {
            assert_eq!(pid_list(list), Err(why));
        }
        let uid = "is neither a user id, which is 0 to 4294967294, nor a range as 1000-1999";
        assert_eq!(uid_list("root"), Err(format!("'root' {uid}; did you mean '0'?")));
        assert_eq!(uid_list("4294967295"), Err(format!("'4294967295' {uid}")));
        assert_eq!(pid_list_or_all("0,1"), Err(format!("'0' {pid}")));
    }

    #[test]
    fn names_are_cut_as_the_kernel_cuts_them() {
        let names = |list| Names::of(&name_list(list).unwrap().0);
        let comm = *b"chromium-browse\0";
        assert_eq!(names("chromium-browser"), Names { named: vec![(comm, true)], others: false });
        let without = names("!sshd");
        assert!(without.others && !without.named[0].1 && !without.is_nothing());
        assert!(names("a,!a").is_nothing());
        assert_eq!(name_list("a,"), Err("a word of the list is empty".to_owned()));
    }

    proptest! {
        #[test]
        fn prefixes_have_just_the_numbers_of_their_range(low: u32, len in 0_u32..5000, probe in 0_u32..6000) {
            let high = low.saturating_add(len);
            let number = low.saturating_sub(500).saturating_add(probe);
            let has = |&(bits, first): &(u32, u32)| (u64::from(number) ^ u64::from(first)) >> (32 - bits) == 0;
            let found = prefixes((low, high));
            prop_assert_eq!(found.iter().filter(|prefix| has(prefix)).count(), usize::from((low..=high).contains(&number)));
            prop_assert!(found.len() <= 62);
        }

        #[test]
        fn junk_never_panics(text: String) {
            let _ = (pid_list(&text), uid_list(&text), name_list(&text));
        }
    }
}
