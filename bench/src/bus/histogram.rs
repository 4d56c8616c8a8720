//! Latencies of millions of deliveries in a few kilobytes: buckets that are 1.6 % wide.

/// Buckets to a doubling.
const STEPS: usize = 64;

pub(super) struct Histogram {
    counts: Vec<u64>,
    total: u64,
}

impl Default for Histogram {
    fn default() -> Histogram {
        Histogram { counts: vec![0; 64 * STEPS], total: 0 }
    }
}

impl Histogram {
    pub(super) fn add(&mut self, value: u64) {
        self.counts[bucket(value)] += 1;
        self.total += 1;
    }

    /// The value below which `percent` of all lie, to the width of a bucket. 0 for none.
    pub(super) fn percentile(&self, percent: f64) -> u64 {
        let rank = ((percent / 100.0 * self.total as f64).ceil() as u64).max(1);
        let mut seen = 0;
        let found = self.counts.iter().position(|count| {
            seen += count;
            seen >= rank
        });
        found.map_or(0, lowest)
    }
}

fn bucket(value: u64) -> usize {
    if value < STEPS as u64 {
        return value as usize;
    }
    let exponent = value.ilog2() as usize;
    (exponent - 5) * STEPS + ((value >> (exponent - 6)) as usize & (STEPS - 1))
}

fn lowest(bucket: usize) -> u64 {
    if bucket < STEPS { bucket as u64 } else { ((STEPS + bucket % STEPS) as u64) << (bucket / STEPS - 1) }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn percentiles_are_right_to_a_bucket() {
        let mut h = Histogram::default();
        assert_eq!(h.percentile(50.0), 0);
        (1..=100_000).for_each(|v| h.add(v));
        for percent in [0.5, 1.0, 50.0, 99.0, 99.9, 100.0] {
            let (got, due) = (h.percentile(percent) as f64, percent * 1_000.0);
            assert!((got - due).abs() / due < 0.016, "{percent}: {got}, not {due}");
        }
        h.add(u64::MAX);
        assert!(h.percentile(100.0) > u64::MAX / 100 * 98);
    }
}
