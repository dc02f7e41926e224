//! The CPU backend's kernels: pure functions over `f32` slices. Only `program` knows of graphs: it puts each step of a plan
//! onto a kernel. The register tiles read and write through raw pointers, so every public function asserts the lengths of
//! its slices (a planned graph cannot break them).
//!
//! # How the convolution engine works
//!
//! Convolutions and linear layers take nine tenths of a job's time (`bench --profile` shows it), and all of them, forward and
//! backward, come down to one register tile. The rest of this folder carries data to it.
//!
//! ## Layout
//! Maps lie channels-last, `[row][y][x][channel]` (NHWC): a pixel's channels are one run, a 1x1 convolution is a plain
//! product, and a window of a dense block's wider pixels is a pointer and a stride. Logical order (N, C, H, W) exists at the
//! boundary alone; what has no rows stays in it.
//!
//! Kernels do not read maps. A task first copies what it needs into a *panel*, `[channel block][pixel][16]`, with the zero
//! padding in it, in scratch memory that each thread keeps (`scratch`): pixels are then 64 bytes apart whatever the layer, so
//! that every load is a register and a constant, distances of a power of two do not meet in one cache set, and no border is
//! a special case. Weights are packed once (`packed`), `[output block][channel block][tap][channel][output]`, an output block being a
//! tile's width, and again when training moves them. Panel and weights of a task are made to stay in the L2 cache.
//!
//! ## The register tile
//! `tile` holds P pixels by V vectors of output channels in registers and adds one channel of one tap at a time: V loads of
//! weights, P broadcasts, P·V fused multiply-adds. With AVX-512 14 x 2 (28 of 32 registers), with AVX2 6 x 2 (12 of 16), else
//! 4 x 2: the most that leaves room for the operands, and more multiply-adds than loads. Smaller tiles serve borders.
//! It is written once over a trait of vectors (`vector`) and compiled for each instruction set; `isa` chooses as the program
//! runs. A second kernel sums over pixels in place of channels: the weight gradient's.
//!
//! ## Paths
//! `path` alone chooses, by the layer's shape; `inspect --kernels` prints its choice for each layer of a network:
//! - direct (`conv`): tiles over the panel of a group of output rows. A stride puts columns into phases; the input gradient
//!   is the same with weights turned and transposed, a stride then being zeros between pixels.
//! - winograd (`winograd`): 3x3 at stride 1 between many channels, forward and towards the input, by default (`--conv exact`
//!   turns it off). M x M outputs come from (M + 2) x (M + 2) transformed inputs: F(4x4) has a quarter of the multiplications,
//!   F(2x2), where borders leave it the fewer, 4/9. The products of the transforms are panels for the forward register tile.
//! - product (`gemm`): 1x1 convolutions, a row of the product a pixel.
//! - linear (`linear`): linear layers, both ways, by two tiles of their own whose lanes run along the inputs: so W is read as it lies
//!   in the mapped file, never packed or copied (half a gigabyte of VGG's).
//! - narrow (`conv_narrow`): an input gradient towards 1 or 3 channels, which would leave 13 of 16 lanes idle: the taps join
//!   the lanes, as a product, and a gather sums up.
//! - bands and tap rows (`conv_weight`): weight gradients.
//! - update (`intervene`): the decoder's first convolution of a sweep's variants, as the image's own result less the cleared
//!   channels' share.
//!
//! ## Bits
//! An image's result is the same to the bit whatever the batch, its neighbours, the thread count and the order (invariant 3).
//! Therefore a path, and the places where a sum is cut, follow from the layer's shape and the instruction set alone, never
//! from rows or threads. Within a piece each output is ONE chain of fused multiply-adds in a fixed order, channel blocks
//! outermost, then taps, then channels: how the work is cut into tiles, groups and tasks cannot be seen in it.
//!
//! By Winograd's tiles a chain runs over channels alone, and each output mixes the (M + 2)² chains of its tile: 1e-6 to 4e-6 of
//! the largest output is the error, F(2x2)'s at most 1e-6. So that a true zero stays one, each tile carries a mask of outputs whose
//! window is zero in all channels, by value: these are exactly the bias, a gradient exactly 0, whatever else their tile holds
//! (without it the sign of rounding would decide a seventh of FGSM's steps). And so that equals stay equal, outputs whose window
//! is their neighbour's, moved along a line of like pixels, are made again as plain sums: flat areas and their borders, where a
//! max-pool's gradient goes to the first of its equals, as in PyTorch. A NaN reaches every output whose window holds
//! it, as by any path, and may reach its whole tile; an infinity may become NaN there.
//!
//! A chain of n products errs by some sqrt(n) roundings of its sum, so long sums are cut: above 576 terms a convolution adds up
//! pieces of about 144, above 2048 a product pieces of 512 channels. The weight gradient sums over rows, so its order is
//! that of bands and groups of bands, whose number follows from shape and rows, never from threads. Instruction sets differ
//! in bits where they differ in tiles of the weight gradient or have no fused multiply-add; each agrees with `reference` within
//! the op's tolerance.
//!
//! ## Threads
//! rayon's current pool. Where a batch has an image or more for each thread, a thread takes its images through a whole *stretch* of
//! layers alone, one after the other, with what lies between the layers in memory of its own (`stretch`): threads wait for
//! nobody, and a layer finds its input in the thread's caches. A stretch ends where a layer's weights are more than 4 MB, which
//! all threads had better read together, and where rows are summed over. There, and where images are fewer than threads, a layer is
//! cut into some four tasks a thread, by groups of output rows or ranges of output blocks (`gemm::divide` finds the cut that
//! streams the fewest bytes), each writing outputs of its own; on large maps one image is enough for all threads.

pub mod conv;
mod conv_narrow;
pub mod conv_weight;
pub mod gemm;
pub mod intervene;
pub mod isa;
pub mod linear;
mod norm;
pub mod packed;
pub mod path;
pub mod peak;
pub mod pointwise;
pub mod pool;
mod program;
mod rows;
mod scratch;
mod tile;
mod vector;
pub mod winograd;

pub use program::Cpu;
