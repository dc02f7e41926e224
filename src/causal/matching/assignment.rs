//! The assignment problem: rows to columns, one to one, so that what they gain adds up to the most (Kuhn's Hungarian method with
//! potentials, O(n^3); Jonker and Volgenant 1987).

/// The column of each row of a square table of gains (correlations, so that no sum overflows). Of several best assignments it is
/// always the same one. What is not a finite number gains nothing, and so does what a short row lacks.
pub(super) fn assign(gains: &[Vec<f64>]) -> Vec<usize> {
    let n = gains.len();
    let cost = |row: usize, column: usize| {
        let gain = gains[row].get(column).copied().filter(|gain| gain.is_finite());
        -gain.unwrap_or(0.0)
    };
    // column n stands for the row that looks for one
    let (mut row_price, mut column_price) = (vec![0.0; n], vec![0.0; n + 1]);
    let mut owner: Vec<Option<usize>> = vec![None; n + 1];
    for row in 0..n {
        owner[n] = Some(row);
        // the cheapest way from `row` to every column, the column before it on that way, and those that are settled
        let (mut distance, mut before) = (vec![f64::INFINITY; n], vec![n; n]);
        let mut settled = vec![false; n + 1];
        let mut at = n;
        while let Some(holder) = owner[at] {
            settled[at] = true;
            let (mut nearest, mut next) = (f64::INFINITY, n);
            for column in (0..n).filter(|&column| !settled[column]) {
                let reduced = cost(holder, column) - row_price[holder] - column_price[column];
                if reduced < distance[column] {
                    (distance[column], before[column]) = (reduced, at);
                }
                if distance[column] < nearest {
                    (nearest, next) = (distance[column], column);
                }
            }
            for column in 0..=n {
                match owner[column] {
                    Some(holder) if settled[column] => {
                        row_price[holder] += nearest;
                        column_price[column] -= nearest;
                    }
                    _ if column < n => distance[column] -= nearest,
                    _ => {}
                }
            }
            at = next;
        }
        // every holder on the way moves on by one column
        while at != n {
            owner[at] = owner[before[at]];
            at = before[at];
        }
    }
    let mut columns = vec![0; n];
    for (column, row) in owner.iter().take(n).enumerate() {
        if let Some(row) = *row {
            columns[row] = column;
        }
    }
    columns
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;

    fn total(gains: &[Vec<f64>], columns: &[usize]) -> f64 {
        columns.iter().enumerate().map(|(row, &column)| gains[row][column]).sum()
    }

    /// The best of all permutations.
    fn best(gains: &[Vec<f64>], columns: &mut Vec<usize>) -> f64 {
        let n = gains.len();
        if columns.len() == n {
            return total(gains, columns);
        }
        let mut most = f64::NEG_INFINITY;
        for column in 0..n {
            if !columns.contains(&column) {
                columns.push(column);
                most = most.max(best(gains, columns));
                columns.pop();
            }
        }
        most
    }

    proptest! {
        #[test]
        fn no_permutation_gains_more(gains in (1usize..7).prop_flat_map(|n| {
            prop::collection::vec(prop::collection::vec((-4i32..5).prop_map(|g| f64::from(g) / 4.0), n), n)
        })) {
            let columns = assign(&gains);
            let mut sorted = columns.clone();
            sorted.sort_unstable();
            prop_assert!(sorted.iter().enumerate().all(|(i, &c)| i == c), "{:?}", columns);
            prop_assert!((total(&gains, &columns) - best(&gains, &mut Vec::new())).abs() < 1e-12);
        }
    }

    #[test]
    fn nothing_and_what_is_no_number_are_assigned_too() {
        assert!(assign(&[]).is_empty());
        assert_eq!(assign(&[vec![f64::NAN, 1.0], vec![f64::INFINITY]]), [1, 0]);
    }
}
