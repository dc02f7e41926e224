//! Pixels as the bytes of a PNG file, for whoever draws: images after an attack, maps, galleries.

use std::io;

/// What a pixel is made of, 8 bits each.
#[derive(Clone, Copy, Debug, PartialEq, Eq)]
pub enum Channels {
    /// Brightness.
    Grey,
    /// Red, green, blue.
    Rgb,
    /// The same, and how opaque.
    Rgba,
}

/// `pixels`, row by row, of a picture of `size` (width and height), as a PNG file.
///
/// # Errors
/// [`io::Error`] for a size that PNG cannot hold, or that is not that of the pixels.
pub fn png(pixels: &[u8], size: [usize; 2], channels: Channels) -> io::Result<Vec<u8>> {
    let [width, height] = size.map(|n| u32::try_from(n).map_err(|_| io::Error::from(io::ErrorKind::InvalidInput)));
    let mut file = Vec::new();
    let mut encoder = png::Encoder::new(&mut file, width?, height?);
    encoder.set_color(match channels {
        Channels::Grey => png::ColorType::Grayscale,
        Channels::Rgb => png::ColorType::Rgb,
        Channels::Rgba => png::ColorType::Rgba,
    });
    encoder.set_depth(png::BitDepth::Eight);
    let mut writer = encoder.write_header().map_err(io::Error::other)?;
    writer.write_image_data(pixels).map_err(io::Error::other)?;
    writer.finish().map_err(io::Error::other)?;
    Ok(file)
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn a_picture_is_read_back_as_it_was() {
        for (channels, each) in [(Channels::Grey, 1), (Channels::Rgb, 3), (Channels::Rgba, 4)] {
            let pixels: Vec<u8> = (0..3 * 2 * each).map(|i| (i * 37 % 256) as u8).collect();
            let file = png(&pixels, [3, 2], channels).unwrap();
            let mut reader = png::Decoder::new(io::Cursor::new(file)).read_info().unwrap();
            let mut read = vec![0; reader.output_buffer_size().unwrap()];
            let info = reader.next_frame(&mut read).unwrap();
            assert_eq!(((info.width, info.height), read), ((3, 2), pixels));
        }
        assert!(png(&[0; 5], [3, 2], Channels::Grey).is_err() && png(&[], [0, 0], Channels::Rgb).is_err());
    }
}
