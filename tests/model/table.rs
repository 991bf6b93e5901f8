//! Counts of what was enumerated, a row for each script.

use std::sync::Mutex;

pub struct Table {
    columns: &'static [&'static str],
    rows: Mutex<Vec<(String, Vec<u64>)>>,
}

impl Table {
    pub const fn new(columns: &'static [&'static str]) -> Self {
        Self {
            columns,
            rows: Mutex::new(Vec::new()),
        }
    }

    /// Takes note of a script that is done, and prints the table when that was the last of `all`.
    pub fn add(&self, script: String, counts: &[u64], all: usize) {
        println!("{script}: {counts:?}");
        let mut rows = self.rows.lock().unwrap();
        rows.push((script, counts.to_vec()));
        if rows.len() < all {
            return;
        }
        rows.sort();
        let total = |column| rows.iter().map(|(_, counts)| counts[column]).sum();
        let totals = (0..self.columns.len()).map(total).collect();
        rows.push(("together".to_owned(), totals));
        let columns = self.columns.iter().map(|column| format!("{column:>12}"));
        println!("\n{:<34}{}", "script", columns.collect::<String>());
        for (script, counts) in rows.iter() {
            let counts = counts.iter().map(|count| format!("{count:>12}"));
            println!("{script:<34}{}", counts.collect::<String>());
        }
    }
}
