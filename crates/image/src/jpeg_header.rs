//! How a JPEG is coded according to its markers, and which kinds are supported.
//!
//! The rules for colour spaces are those of libjpeg, and therefore of Pillow. The rules for layouts come from
//! comparing the decoders with libjpeg (`tests/jpeg_grid.py`).

/// libjpeg's `JPEG_MAX_DIMENSION`.
const MAX_SIDE: u32 = 65_500;
/// Maximum number of scans, far above that of any encoder; a small file with very many scans would take
/// minutes to decode.
const MAX_SCANS: usize = 500;
/// Number of coefficients, from the first in zigzag order, that a progressive file must complete: libjpeg
/// estimates incomplete ones among them (block smoothing).
const SMOOTHED: usize = 10;

/// The segments of a file that determine how it is coded.
#[derive(Default)]
pub(crate) struct Header<'a> {
    /// The first frame header (SOF), and the low byte of its marker.
    pub sof: Option<(u8, &'a [u8])>,
    /// Whether there is another frame header.
    pub several_frames: bool,
    /// Scan headers (SOS).
    pub scans: Vec<&'a [u8]>,
    /// Whether a JFIF marker (APP0) precedes the first scan.
    pub jfif: bool,
    /// Adobe markers (APP14) that precede the first scan.
    pub adobe: Vec<&'a [u8]>,
    /// Whether a quantization table follows the first scan.
    pub late_table: bool,
}

/// A component of the frame: its identifier, and its horizontal and vertical sampling factors.
#[derive(Clone, Copy)]
pub(crate) struct Component {
    id: u8,
    across: u32,
    down: u32,
}

/// The colour space of the components.
#[derive(Clone, Copy, PartialEq, Eq)]
pub(crate) enum Colours {
    Grey,
    Rgb,
    YCbCr,
    Cmyk,
    Ycck,
}

/// A scan header, with the indices of its components in the frame.
struct Scan {
    components: Vec<usize>,
    first: usize,
    last: usize,
    high: u8,
    low: u8,
}

impl<'a> Header<'a> {
    /// Records the segment of a marker. Other markers are ignored.
    pub(crate) fn add(&mut self, marker: u8, segment: &'a [u8]) {
        let early = self.scans.is_empty();
        match marker {
            0xC4 | 0xC8 | 0xCC => {}
            0xC0..=0xCF if self.sof.is_some() => self.several_frames = true,
            0xC0..=0xCF => self.sof = Some((marker, segment)),
            0xDA => self.scans.push(segment),
            0xDB => self.late_table |= !early,
            0xE0 if early && segment.len() >= 14 => self.jfif |= segment.starts_with(b"JFIF\0"),
            0xEE if early && segment.starts_with(b"Adobe") => self.adobe.push(segment),
            _ => {}
        }
    }

    /// The components of an image of `size`, or the reason why neither decoder decodes the file as libjpeg
    /// does.
    pub(crate) fn frame(&self, size: (u32, u32)) -> Result<Vec<Component>, String> {
        let Some((process, &[bits, _, _, _, _, count, ref rest @ ..])) = self.sof else {
            return Err("an incomplete frame header".into());
        };
        let components: Vec<_> = rest.as_chunks::<3>().0.iter().map(Component::new).collect();
        let (across, down) = largest(&components);
        let divides = |c: &Component| across.is_multiple_of(c.across) && down.is_multiple_of(c.down);
        let refused = match process {
            0xC3 => "lossless coding".into(),
            0xC5..=0xC7 => "hierarchical coding".into(),
            0xC9..=0xCF => "arithmetic coding".into(),
            _ if self.several_frames => "several frames".into(),
            _ if bits != 8 => format!("samples of {bits} bits"),
            _ if size.1 == 0 => "a height that is told only after the image".into(),
            _ if size.0.max(size.1) > MAX_SIDE => format!("a side of more than {MAX_SIDE} pixels"),
            _ if !matches!(count, 1 | 3 | 4) => format!("{count} colour components"),
            _ if components.len() != usize::from(count) => "an incomplete frame header".into(),
            _ if across.max(down) > 4 || across.min(down) == 0 || !components.iter().all(divides) => {
                "sampling factors that do not divide one another".into()
            }
            _ => return self.layout(process, &components, size).map(|()| components),
        };
        Err(refused)
    }

    fn layout(&self, process: u8, components: &[Component], size: (u32, u32)) -> Result<(), String> {
        if self.scans.len() > MAX_SCANS {
            return Err(format!("more than {MAX_SCANS} scans"));
        }
        let parse = |scan: &&[u8]| Scan::parse(scan, components).ok_or("an irregular scan header");
        let scans = self.scans.iter().map(parse).collect::<Result<Vec<_>, _>>()?;
        let complete = match process {
            0xC2 if self.late_table => return Err("quantisation tables between progressive scans".into()),
            0xC2 => is_finished(&scans, components.len()),
            _ => is_sequential(&scans, components.len()),
        };
        let whole = largest(components);
        let alone = |scan: &Scan| components.len() > 1 && scan.components.len() == 1;
        let mut apart = scans.iter().filter(|scan| alone(scan)).map(|scan| components[scan.components[0]]);
        if !complete {
            return Err("scans that do not add up to one whole image".into());
        }
        if apart.any(|c| !blocks_agree(size.0, c.across, whole.0) || !blocks_agree(size.1, c.down, whole.1)) {
            return Err("several sampling factors in separate scans".into());
        }
        Ok(())
    }

    /// As libjpeg's `default_decompress_parms`: a JFIF marker decides, then the Adobe marker, then the
    /// component identifiers.
    pub(crate) fn colours(&self, components: &[Component]) -> Colours {
        let transform = self.adobe.iter().rev().find_map(|segment| segment.get(11).copied());
        match (components.len(), transform) {
            (1, _) => Colours::Grey,
            (3, _) if self.jfif => Colours::YCbCr,
            (3, Some(0)) => Colours::Rgb,
            (3, None) if ids(components).eq(*b"RGB") => Colours::Rgb,
            (3, _) => Colours::YCbCr,
            (_, None | Some(0)) => Colours::Cmyk,
            (_, Some(_)) => Colours::Ycck,
        }
    }

    /// Whether the file is of a kind that the fast decoder decodes correctly: grey or three components, luma
    /// sampled at one or two times the resolution of chroma, in one scan or progressive, and an unambiguous
    /// colour space.
    pub(crate) fn is_common(&self, components: &[Component]) -> bool {
        let sampling = match components {
            [only] => only.across.max(only.down) <= 2,
            [luma, rest @ ..] => {
                luma.across.max(luma.down) <= 2 && rest.iter().all(|c| c.across * c.down == 1)
            }
            [] => false,
        };
        let colours = !ids(components).eq(*b"RGB")
            && match self.adobe[..] {
                [] => true,
                [segment] => !self.jfif && components.len() == 3 && matches!(segment.get(11), Some(0 | 1)),
                _ => false,
            };
        let one_scan = matches!(self.scans[..], [&[count, ..]] if usize::from(count) == components.len());
        let progressive = matches!(self.sof, Some((0xC2, _)));
        sampling && colours && components.len() < 4 && (one_scan || progressive)
    }
}

impl Component {
    fn new(&[id, sampling, _]: &[u8; 3]) -> Self {
        Self { id, across: u32::from(sampling >> 4), down: u32::from(sampling & 15) }
    }
}

impl Scan {
    fn parse(segment: &[u8], frame: &[Component]) -> Option<Self> {
        let (&count, rest) = segment.split_first()?;
        let (names, &[first, last, approximation]) = rest.split_last_chunk::<3>()?;
        let named = names.as_chunks::<2>();
        let place = |[id, _]: &[u8; 2]| frame.iter().position(|c| c.id == *id);
        let components = named.0.iter().map(place).collect::<Option<Vec<_>>>()?;
        // Each component once, in the order of the frame.
        let regular = components.is_sorted_by(|a, b| a < b) && named.1.is_empty() && last < 64;
        let counted = !components.is_empty() && components.len() == usize::from(count);
        let (first, last) = (usize::from(first), usize::from(last));
        let (high, low) = (approximation >> 4, approximation & 15);
        (regular && counted).then_some(Self { components, first, last, high, low })
    }
}

fn ids(components: &[Component]) -> impl Iterator<Item = u8> {
    components.iter().map(|c| c.id)
}

/// The largest sampling factors, horizontal and vertical.
fn largest(components: &[Component]) -> (u32, u32) {
    let most = |side: fn(&Component) -> u32| components.iter().map(side).max().unwrap_or(0);
    (most(|c| c.across), most(|c| c.down))
}

/// Whether each component is in exactly one scan with all its coefficients. Some encoders write 0 as the last
/// coefficient.
fn is_sequential(scans: &[Scan], components: usize) -> bool {
    let times = |i| scans.iter().filter(|scan| scan.components.contains(&i)).count();
    let whole = |scan: &Scan| matches!((scan.first, scan.last, scan.high, scan.low), (0, 0 | 63, 0, 0));
    scans.iter().all(whole) && (0..components).all(|i| times(i) == 1)
}

/// Whether the scans refine each coefficient in order, one bit at a time, and complete all coefficients that
/// libjpeg would otherwise estimate.
fn is_finished(scans: &[Scan], components: usize) -> bool {
    // The number of low bits still missing of each coefficient; `None` if it has not been coded yet.
    let mut missing = vec![[None; 64]; components];
    for scan in scans {
        let alone = scan.components.len() == 1;
        if scan.first > scan.last || (scan.first == 0) != (scan.last == 0) || !(alone || scan.first == 0) {
            return false;
        }
        for &component in &scan.components {
            for missing in &mut missing[component][scan.first..=scan.last] {
                let follows = match *missing {
                    None => scan.high == 0,
                    Some(bits) => scan.high == bits && scan.low + 1 == bits,
                };
                if !follows {
                    return false;
                }
                *missing = Some(scan.low);
            }
        }
    }
    missing.iter().all(|component| component[..SMOOTHED].iter().all(|&bits| bits == Some(0)))
}

/// Whether jpeg-decoder counts as many blocks as the standard (ITU-T T.81, A.2.2) for one side of a component
/// that has its own scan, the sampling factor `samples` and the largest sampling factor `most`.
fn blocks_agree(side: u32, samples: u32, most: u32) -> bool {
    let standard = (side * samples).div_ceil(most).div_ceil(8);
    let taken = (side.div_ceil(8 * most) * samples).min(side.div_ceil(8));
    standard == taken
}
