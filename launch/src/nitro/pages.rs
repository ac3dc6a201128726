//! Which huge pages an enclave gets: as little memory as possible beyond what it asks for, and then
//! as few pages as possible. Plain functions over numbers.

use std::collections::BTreeMap;

/// 2 MiB: the least that the driver takes, and what sizes are multiples of (ne_misc_dev.c,
/// NE_MIN_MEM_REGION_SIZE).
pub(super) const UNIT: u64 = 2 << 20;
/// The driver starts no enclave with less (ne_misc_dev.c, NE_MIN_ENCLAVE_MEM_SIZE).
const MIN_ENCLAVE: u64 = 64 << 20;
/// The driver's lists for a region take 24 bytes for each 2 MiB, in one piece of the kernel's
/// memory: 96 KiB for this much, which a busy kernel still has.
const MAX_REGION: u64 = 8 << 30;

/// Pages by their size in bytes. Sizes are powers of two.
pub(super) type Pages = BTreeMap<u64, u64>;

/// The pages for one enclave, as its memory is made of them: the largest first.
#[derive(Debug, Clone, Default, PartialEq, Eq)]
pub(super) struct Plan(Vec<Run>);

/// Pages of one size in a row.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Run {
    /// Bytes a page; a power of two.
    pub(super) size: u64,
    pub(super) count: u64,
}

/// A piece of an enclave's memory, in bytes from its start.
#[derive(Debug, Clone, Copy, PartialEq, Eq)]
pub(super) struct Piece {
    pub(super) offset: u64,
    pub(super) len: u64,
}

/// What an enclave that asks for so many MiB gets at least, in bytes.
pub(super) fn rounded(mib: u32) -> u64 {
    (u64::from(mib) << 20)
        .next_multiple_of(UNIT)
        .max(MIN_ENCLAVE)
}

/// Chooses pages for so many bytes; `None` if the free ones are too few. Pages that the driver does
/// not take are left alone.
pub(super) fn plan(wanted: u64, free: &Pages) -> Option<Plan> {
    let sizes: Vec<Run> = free
        .iter()
        .rev()
        .filter(|(size, _)| size.is_power_of_two() && **size >= UNIT)
        .map(|(&size, &count)| Run { size, count })
        .collect();
    cover(wanted, &sizes)
}

/// The cheapest pages that hold `wanted` bytes. Every size divides the ones before it, so smaller
/// pages that hold at least one larger page hold exactly one among them: taking as many of the
/// largest as fit is never worse. What is left may be cheaper in one page more of that size.
fn cover(wanted: u64, sizes: &[Run]) -> Option<Plan> {
    if wanted == 0 {
        return Some(Plan::default());
    }
    let (&Run { size, count }, smaller) = sizes.split_first()?;
    let fitting = count.min(wanted / size);
    let exact = cover(wanted - fitting * size, smaller).map(|rest| rest.after(size, fitting));
    let one_more = fitting + 1;
    let over = (one_more <= count && one_more * size >= wanted)
        .then(|| Plan::default().after(size, one_more));
    [exact, over].into_iter().flatten().min_by_key(Plan::cost)
}

impl Plan {
    /// The same with larger pages before it.
    fn after(mut self, size: u64, count: u64) -> Plan {
        if count > 0 {
            self.0.insert(0, Run { size, count });
        }
        self
    }

    /// First the bytes, then the pages.
    fn cost(&self) -> (u64, u64) {
        (self.bytes(), self.0.iter().map(|run| run.count).sum())
    }

    pub(super) fn bytes(&self) -> u64 {
        self.0.iter().map(|run| run.size * run.count).sum()
    }

    /// Its pages by size, the largest first.
    pub(super) fn runs(&self) -> &[Run] {
        &self.0
    }

    /// The size of its largest pages, and so what its memory has to be aligned to.
    pub(super) fn align(&self) -> u64 {
        self.0.first().map_or(UNIT, |run| run.size)
    }

    /// The regions to tell the driver of. The pages lie side by side, so that only the driver's own
    /// lists bound a region; it merges what lies side by side in physical memory too.
    pub(super) fn regions(&self) -> Vec<Piece> {
        // Both are powers of two: no page is cut.
        self.pieces(MAX_REGION.max(self.align()))
    }

    /// The memory in pieces of at most so many bytes.
    fn pieces(&self, most: u64) -> Vec<Piece> {
        let total = self.bytes();
        let starts = (0..total.div_ceil(most)).map(|n| n * most);
        starts
            .map(|offset| Piece {
                offset,
                len: most.min(total - offset),
            })
            .collect()
    }

    /// The memory in pieces to be populated, each at least a page and about this many bytes.
    pub(super) fn portions(&self, about: u64) -> Vec<Piece> {
        let mut portions = Vec::new();
        let mut start = 0;
        for &Run { size, count } in &self.0 {
            let run = Plan(vec![Run { size, count }]);
            portions.extend(run.pieces(about.max(size)).into_iter().map(|piece| Piece {
                offset: start + piece.offset,
                ..piece
            }));
            start += size * count;
        }
        portions
    }
}

/// As people write a size.
pub(super) fn size_name(bytes: u64) -> String {
    let mib = bytes >> 20;
    if mib >= 1024 && mib.is_multiple_of(1024) {
        format!("{} GiB", mib / 1024)
    } else {
        format!("{mib} MiB")
    }
}

/// Free pages as an error shows them.
pub(super) fn describe(free: &Pages) -> String {
    let usable = free
        .iter()
        .filter(|(size, count)| **size >= UNIT && **count > 0);
    let sizes: Vec<String> = usable
        .map(|(size, count)| format!("{count} x {}", size_name(*size)))
        .collect();
    if sizes.is_empty() {
        return "none".to_owned();
    }
    sizes.join(", ")
}

#[cfg(test)]
mod tests {
    use super::*;
    use proptest::prelude::*;
    use proptest::test_runner::{Config, TestRunner};

    const MIB: u64 = 1 << 20;
    const GIB: u64 = 1 << 30;

    fn pages(pages: &[(u64, u64)]) -> Pages {
        pages.iter().copied().collect()
    }

    fn taken(wanted: u64, free: &[(u64, u64)]) -> Option<Vec<(u64, u64)>> {
        let plan = plan(wanted, &pages(free))?;
        Some(plan.0.iter().map(|run| (run.size, run.count)).collect())
    }

    #[test]
    fn no_page_of_a_gigabyte_for_256_mib_while_smaller_ones_are_there() {
        let both = [(UNIT, 128), (GIB, 1)];
        assert_eq!(taken(256 * MIB, &both), Some(vec![(UNIT, 128)]));
        assert_eq!(taken(258 * MIB, &both), Some(vec![(GIB, 1)]));
        assert_eq!(taken(256 * MIB, &[(GIB, 2)]), Some(vec![(GIB, 1)]));
        assert_eq!(taken(GIB, &both), Some(vec![(GIB, 1)]));
        let mixed = Some(vec![(GIB, 1), (UNIT, 64)]);
        assert_eq!(taken(GIB + 128 * MIB, &both), mixed);
    }

    #[test]
    fn too_few_pages_are_no_plan_and_small_ones_do_not_count() {
        assert_eq!(taken(64 * MIB, &[(UNIT, 31)]), None);
        assert_eq!(taken(64 * MIB, &[(64 << 10, 100_000)]), None);
        assert_eq!(taken(64 * MIB, &[]), None);
    }

    #[test]
    fn what_is_asked_for_is_rounded_up_to_what_the_driver_takes() {
        assert_eq!(rounded(1), 64 * MIB);
        assert_eq!(rounded(64), 64 * MIB);
        assert_eq!(rounded(65), 66 * MIB);
        assert_eq!(rounded(1 << 20), 1 << 40);
    }

    #[test]
    fn regions_and_portions_cover_the_memory_and_cut_no_page() {
        let free = pages(&[(UNIT, 100), (GIB, 20), (16 * GIB, 1)]);
        let plan = plan(35 * GIB + 10 * MIB, &free).unwrap();
        assert_eq!(plan.align(), 16 * GIB);
        for pieces in [plan.regions(), plan.portions(64 * MIB)] {
            let mut end = 0;
            for piece in &pieces {
                assert_eq!(piece.offset, end);
                end += piece.len;
            }
            assert_eq!(end, plan.bytes());
        }
        assert_eq!(plan.regions().len(), 3);
        assert_eq!(plan.portions(64 * MIB).len(), 1 + 19 + 1);
    }

    /// Every choice there is.
    fn exhaustive(wanted: u64, free: &[(u64, u64)]) -> Option<(u64, u64)> {
        let Some((&(size, count), rest)) = free.split_first() else {
            return (wanted == 0).then_some((0, 0));
        };
        (0..=count)
            .filter_map(|n| {
                let left = wanted.saturating_sub(n * size);
                let (bytes, pages) = exhaustive(left, rest)?;
                Some((bytes + n * size, pages + n))
            })
            .min()
    }

    #[test]
    fn no_choice_wastes_less_or_takes_fewer_pages() {
        let sizes = prop::sample::subsequence(vec![UNIT, 8 * MIB, 32 * MIB, 128 * MIB, GIB], 0..=4);
        let pools = sizes.prop_flat_map(|sizes| {
            let counts = prop::collection::vec(0u64..9, sizes.len());
            (Just(sizes), counts)
        });
        let wanted = 1u64..700;
        let mut runner = TestRunner::new(Config::with_cases(10_000));
        let property = |(wanted, (sizes, counts)): (u64, (Vec<u64>, Vec<u64>))| {
            let wanted = wanted * UNIT;
            let free: Vec<(u64, u64)> = sizes.into_iter().zip(counts).collect();
            let plan = plan(wanted, &pages(&free));
            prop_assert_eq!(plan.as_ref().map(Plan::cost), exhaustive(wanted, &free));
            if let Some(plan) = plan {
                for run in plan.runs() {
                    // Without any of its pages it would be too small.
                    prop_assert!(plan.bytes() - run.size < wanted);
                    prop_assert!(run.count <= pages(&free)[&run.size]);
                }
            }
            Ok(())
        };
        runner.run(&(wanted, pools), property).unwrap();
    }

    #[test]
    fn large_pools_are_planned_without_waste_where_that_is_possible() {
        let pools = (0u64..500_000, 0u64..4000, 0u64..30);
        let wanted = 32u64..600_000;
        let mut runner = TestRunner::new(Config::with_cases(10_000));
        let property = |(wanted, (small, large, huge)): (u64, (u64, u64, u64))| {
            let wanted = wanted * UNIT;
            let free = pages(&[(UNIT, small), (GIB, large), (16 * GIB, huge)]);
            let all = free.iter().map(|(size, count)| size * count).sum::<u64>();
            let plan = plan(wanted, &free);
            prop_assert_eq!(plan.is_some(), wanted <= all);
            let Some(plan) = plan else { return Ok(()) };
            prop_assert!(plan.bytes() >= wanted);
            if small * UNIT >= 16 * GIB {
                prop_assert_eq!(plan.bytes(), wanted);
            }
            for run in plan.runs() {
                prop_assert!(run.count <= free[&run.size]);
                prop_assert!(plan.bytes() - run.size < wanted);
            }
            Ok(())
        };
        runner.run(&(wanted, pools), property).unwrap();
    }

    #[test]
    fn what_is_free_is_named_by_size() {
        let free = pages(&[(64 << 10, 9), (UNIT, 100), (32 * MIB, 0), (GIB, 2)]);
        assert_eq!(describe(&free), "100 x 2 MiB, 2 x 1 GiB");
        assert_eq!(describe(&Pages::new()), "none");
    }
}
