//! Words as people type them: lists with commas, and the known word that was meant by another one.

/// The words of a comma list, without the blanks around them. An empty list has none: an option that is given an empty
/// value, as from an unset variable of a script, counts as not given.
pub fn words(text: &str) -> impl Iterator<Item = &str> {
    let is_empty = text.trim().is_empty();
    text.split(',').map(str::trim).filter(move |_| !is_empty)
}

/// The word that is most like this one, if no more than a third of its letters are other ones, or `plus` thirds of a
/// letter more.
pub fn nearest_of<'w>(name: &str, words: impl Iterator<Item = &'w str>, plus: usize) -> Option<&'w str> {
    let all = words.map(|word| (distance(name, word), word));
    all.min().filter(|(distance, word)| *distance <= (word.len() + plus) / 3).map(|(_, word)| word)
}

/// Insertions, deletions and replacements between two words.
fn distance(a: &str, b: &str) -> usize {
    let b: Vec<char> = b.chars().collect();
    let mut row: Vec<usize> = (0..=b.len()).collect();
    for (i, ca) in a.chars().enumerate() {
        let mut corner = row[0];
        row[0] = i + 1;
        for (j, cb) in b.iter().enumerate() {
            let replaced = corner + usize::from(ca != *cb);
            corner = row[j + 1];
            row[j + 1] = replaced.min(corner + 1).min(row[j] + 1);
        }
    }
    row[b.len()]
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn distances() {
        assert_eq!(distance("", "abc"), 3);
        assert_eq!(distance("kitten", "sitting"), 3);
        assert_eq!(distance("same", "same"), 0);
    }
}
