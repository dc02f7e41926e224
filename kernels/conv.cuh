// What the implicit GEMMs of conv_gemm.cu and conv_mma.cu share: their argument, and where a block's pixels lie.

struct ConvArguments {
    const float *x;      // (images, h, w) pixels of c channels
    const float *weight; // packed, as the file says
    const float *bias;   // (n), or null
    const float *scale;  // (c): what is convolved is relu(x * scale + shift), and 0 in the padding; or null
    const float *shift;  // (c)
    float *y;            // (images, p, q) pixels of n channels
    u32 pixels;          // images * p * q
    int h, w, c;
    int x_pixel, x_image;         // floats from one pixel, image to the next
    int p, q, n;
    int n_padded;                 // n, rounded up to a multiple of the tile's columns
    int y_pixel, y_line, y_image; // floats from one pixel, line, image to the next
    int kh, kw;
    int k_tiles;        // kh * kw * c, in tiles of K
    int stride;
    int top, left;      // padding
    u32 options;
};
static_assert(sizeof(ConvArguments) == 128, "as in launch/conv.rs");

enum { RELU = 1, STORE_QUADS = 2, STORE_PAIRS = 4 };

// What a block knows about a row of its left tile: where its window begins in the block's part of x, in floats, that cell's
// place in the image (it may lie in the padding), and where its result goes in the block's part of y.
struct __align__(16) Pixel {
    int x, row, column, y;
};

// The row of a window that lies in the padding as a whole: what is behind the last pixel.
constexpr int NOWHERE = -0x40000000;

// Pixel `row` of a block that begins with pixel `first`, in image `image`, from whose first pixel on places are counted.
__device__ __forceinline__ Pixel find_pixel(const ConvArguments &a, u32 first, u32 image, u32 row) {
    const u32 plane = a.p * a.q, m = first - image * plane + row, n = m / plane, at = m % plane, p = at / a.q, q = at % a.q;
    Pixel pixel;
    pixel.row = p * a.stride - a.top;
    pixel.column = q * a.stride - a.left;
    pixel.x = n * a.x_image + (pixel.row * a.w + pixel.column) * a.x_pixel;
    pixel.y = n * a.y_image + p * a.y_line + q * a.y_pixel;
    if (first + row >= a.pixels) pixel.row = NOWHERE;
    return pixel;
}
