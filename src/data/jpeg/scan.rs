//! A JPEG's frame and its scans: which blocks a scan visits in which order, and where their samples or coefficients go.
//! Called by [`super`], which reads the markers.

use super::super::decode::Damage;
use super::entropy::{self, Band, Bits, Block, Huffman};
use super::idct;
use super::upsample::Plane;

/// Most scans of a progressive file. Encoders write about ten; each costs a pass over the image, so a small file could
/// otherwise ask for hours.
const SCANS_MAX: usize = 200;

/// Tables that markers define and scans use.
#[derive(Default)]
pub struct Tables {
    /// Quantisation, natural order.
    pub quantisation: [Option<[u16; 64]>; 4],
    /// Huffman for DC.
    pub dc: [Option<Huffman>; 4],
    /// Huffman for AC.
    pub ac: [Option<Huffman>; 4],
    /// MCUs between restart markers; 0 for none.
    pub restart_interval: usize,
}

/// How a frame is coded.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Coding {
    /// Each block at once.
    Sequential,
    /// In several scans, coarse to fine.
    Progressive,
}

/// A component of a frame.
pub struct Component {
    /// Its number in the file.
    pub id: u8,
    /// Blocks of it in an MCU, across and down.
    pub sampling: [usize; 2],
    /// Which quantisation table.
    pub table: usize,
    /// Blocks across, and down, with those that fill the last MCUs.
    blocks: [usize; 2],
    /// Blocks across, and down, that a scan of this component alone visits.
    own_blocks: [usize; 2],
    /// The table as it was when the component's first scan began.
    quantisation: Option<[u16; 64]>,
    /// Progressive only: all blocks.
    coefficients: Vec<Block>,
    plane: Plane,
}

/// The image of a file.
pub struct Frame {
    /// Pixels across.
    pub width: usize,
    /// Pixels down.
    pub height: usize,
    /// How it is coded.
    pub coding: Coding,
    /// Its components, in order.
    pub components: Vec<Component>,
    mcus: [usize; 2],
    scans: usize,
}

/// What a frame header says of a component: number, sampling across and down, quantisation table.
pub type Declared = (u8, [usize; 2], usize);

impl Frame {
    /// A frame with room for its samples; `file_len` is the length of the whole file, which bounds what it can hold.
    pub fn new(
        [width, height]: [usize; 2],
        coding: Coding,
        declared: &[Declared],
        file_len: usize,
    ) -> Result<Frame, Damage> {
        let most = |axis: usize| declared.iter().map(|(_, s, _)| s[axis]).max().unwrap_or(1);
        let most = [most(0), most(1)];
        let size = [width, height];
        let mcus = [0, 1].map(|axis| size[axis].div_ceil(8 * most[axis]));
        let mut blocks_in_all = 0usize;
        for (_, sampling, _) in declared {
            if !most[0].is_multiple_of(sampling[0]) || !most[1].is_multiple_of(sampling[1]) {
                return Err(Damage::Unsupported("chroma sampled at no whole fraction of the luma".into()));
            }
            blocks_in_all += mcus[0] * sampling[0] * mcus[1] * sampling[1];
        }
        // every block takes at least one bit, so a small file with a huge header is refused before memory is taken
        if blocks_in_all > file_len.saturating_mul(8) {
            return Err(Damage::CutShort);
        }
        let components = declared
            .iter()
            .map(|&(id, sampling, table)| {
                let blocks = [mcus[0] * sampling[0], mcus[1] * sampling[1]];
                let real = [0, 1].map(|axis| (size[axis] * sampling[axis]).div_ceil(most[axis]));
                let plane = Plane {
                    samples: vec![0; 64 * blocks[0] * blocks[1]],
                    stride: 8 * blocks[0],
                    width: real[0],
                    height: real[1],
                    across: most[0] / sampling[0],
                    down: most[1] / sampling[1],
                };
                let coefficients = match coding {
                    Coding::Sequential => Vec::new(),
                    Coding::Progressive => vec![[0; 64]; blocks[0] * blocks[1]],
                };
                let own_blocks = real.map(|samples| samples.div_ceil(8));
                Component { id, sampling, table, blocks, own_blocks, quantisation: None, coefficients, plane }
            })
            .collect();
        Ok(Frame { width, height, coding, components, mcus, scans: 0 })
    }

    /// Decodes one scan that begins at byte `at`; returns where its data end.
    pub fn scan(&mut self, bytes: &[u8], at: usize, scan: &Scan, tables: &Tables) -> Result<usize, Damage> {
        self.scans += 1;
        if self.scans > SCANS_MAX {
            return Err(Damage::Unsupported(format!("more than {SCANS_MAX} scans")));
        }
        for &(component, ..) in &scan.components {
            let component = &mut self.components[component];
            if component.quantisation.is_none() {
                let table = tables.quantisation.get(component.table).copied().flatten();
                component.quantisation = Some(table.ok_or(Damage::Damaged("a quantisation table is missing"))?);
            }
        }
        let mut state = State { bits: Bits::new(bytes, at), before: vec![0; scan.components.len()], skip: 0 };
        let (mut left, mut restarts) = (tables.restart_interval, 0u8);
        let alone = match scan.components[..] {
            [(component, ..)] => Some(component),
            _ => None,
        };
        let steps = match alone {
            Some(component) => self.components[component].own_blocks,
            None => self.mcus,
        };
        for y in 0..steps[1] {
            for x in 0..steps[0] {
                if tables.restart_interval > 0 {
                    if left == 0 {
                        state.bits.restart(restarts)?;
                        state.before.fill(0);
                        state.skip = 0;
                        restarts = (restarts + 1) % 8;
                        left = tables.restart_interval;
                    }
                    left -= 1;
                }
                if alone.is_some() {
                    self.block(&mut state, scan, 0, [x, y], tables)?;
                    continue;
                }
                for slot in 0..scan.components.len() {
                    let [across, down] = self.components[scan.components[slot].0].sampling;
                    for v in 0..down {
                        for h in 0..across {
                            self.block(&mut state, scan, slot, [x * across + h, y * down + v], tables)?;
                        }
                    }
                }
            }
        }
        Ok(state.bits.position())
    }

    /// Decodes the next block of the scan's component `slot`, at block position (x, y).
    fn block(
        &mut self,
        state: &mut State<'_>,
        scan: &Scan,
        slot: usize,
        [x, y]: [usize; 2],
        tables: &Tables,
    ) -> Result<(), Damage> {
        let (component, dc, ac) = scan.components[slot];
        let component = &mut self.components[component];
        let no_table = || Damage::Damaged("a Huffman table is missing");
        let dc = || tables.dc.get(dc).and_then(Option::as_ref).ok_or_else(no_table);
        let ac = || tables.ac.get(ac).and_then(Option::as_ref).ok_or_else(no_table);
        let State { bits, before, skip } = state;
        let before = &mut before[slot];
        let band = scan.band;
        if self.coding == Coding::Sequential {
            let mut block = [0; 64];
            entropy::sequential(bits, dc()?, ac()?, before, &mut block)?;
            component.samples_of(&block, [x, y]);
            return Ok(());
        }
        let block = &mut component.coefficients[y * component.blocks[0] + x];
        match (band.start, scan.refines) {
            (0, false) => entropy::dc_first(bits, dc()?, band, before, block),
            (0, true) => entropy::dc_refine(bits, band, block),
            (_, false) => entropy::ac_first(bits, ac()?, band, skip, block),
            (_, true) => entropy::ac_refine(bits, ac()?, band, skip, block),
        }
    }

    /// The components' planes, once all scans are read.
    pub fn planes(mut self) -> Result<Vec<Plane>, Damage> {
        for component in &mut self.components {
            if component.quantisation.is_none() {
                return Err(Damage::CutShort); // no scan had it
            }
            let coefficients = std::mem::take(&mut component.coefficients);
            let across = component.blocks[0].max(1);
            for (i, block) in coefficients.iter().enumerate() {
                component.samples_of(block, [i % across, i / across]);
            }
        }
        Ok(self.components.into_iter().map(|component| component.plane).collect())
    }
}

impl Component {
    fn samples_of(&mut self, block: &Block, [x, y]: [usize; 2]) {
        let stride = self.plane.stride;
        if let (Some(table), Some(out)) = (&self.quantisation, self.plane.samples.get_mut(8 * y * stride + 8 * x..)) {
            idct::inverse(block, table, out, stride);
        }
    }
}

/// What a scan header says.
pub struct Scan {
    /// Component, DC table, AC table.
    pub components: Vec<(usize, usize, usize)>,
    /// Its band, whole for a sequential frame.
    pub band: Band,
    /// Whether it adds one bit to what earlier scans gave.
    pub refines: bool,
}

/// What goes from block to block of a scan.
struct State<'a> {
    bits: Bits<'a>,
    /// DC of the block before, for each of the scan's components.
    before: Vec<i32>,
    skip: u32,
}
