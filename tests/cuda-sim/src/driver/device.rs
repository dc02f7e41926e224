//! Devices: what they are called, what they can do, and their primary contexts.

use std::ffi::{c_char, c_int, c_uint, c_void};

use super::call::{api, get_many, put, put_if, string};
use super::error::{self, Answer};
use super::state::{self, Driver};
use super::types::*;
use crate::exec::occupancy::Limits;

/// The version of the driver API: 1000 * major + 10 * minor.
pub const DRIVER_VERSION: c_int = 13_050;
/// The newest PTX ISA version that a driver of [`DRIVER_VERSION`] reads.
pub const PTX_VERSION: (u32, u32) = (9, 5);

/// The chip that stands for a compute capability: its limits, and the product that it is.
#[derive(Debug, Clone, Copy)]
pub(crate) struct Chip {
    pub limits: Limits,
    pub product: &'static Product,
}

/// What a product has beyond its compute capability.
#[derive(Debug)]
pub(crate) struct Product {
    sm: u32,
    pub name: &'static str,
    pub multiprocessors: c_int,
    /// The sizes that the shared part of the L1 cache can have, in KiB.
    pub carveouts: &'static [usize],
    pub clock_khz: c_int,
    pub memory_khz: c_int,
    pub bus_bits: c_int,
    pub l2_bytes: c_int,
    pub copy_engines: c_int,
    pub ecc: c_int,
    /// Single to double precision.
    pub ratio: c_int,
}

const PRODUCTS: [Product; 5] = [
    Product {
        sm: 75,
        name: "Simulated Tesla T4 (sm_75)",
        multiprocessors: 40,
        carveouts: &[32, 64],
        clock_khz: 1_590_000,
        memory_khz: 5_001_000,
        bus_bits: 256,
        l2_bytes: 4 << 20,
        copy_engines: 3,
        ecc: 1,
        ratio: 32,
    },
    Product {
        sm: 80,
        name: "Simulated A100 (sm_80)",
        multiprocessors: 108,
        carveouts: &[0, 8, 16, 32, 64, 100, 132, 164],
        clock_khz: 1_410_000,
        memory_khz: 1_215_000,
        bus_bits: 5120,
        l2_bytes: 40 << 20,
        copy_engines: 3,
        ecc: 1,
        ratio: 2,
    },
    Product {
        sm: 86,
        name: "Simulated RTX A6000 (sm_86)",
        multiprocessors: 84,
        carveouts: &[0, 8, 16, 32, 64, 100],
        clock_khz: 1_800_000,
        memory_khz: 8_001_000,
        bus_bits: 384,
        l2_bytes: 6 << 20,
        copy_engines: 2,
        ecc: 0,
        ratio: 32,
    },
    Product {
        sm: 89,
        name: "Simulated L40 (sm_89)",
        multiprocessors: 142,
        carveouts: &[0, 8, 16, 32, 64, 100],
        clock_khz: 2_490_000,
        memory_khz: 9_001_000,
        bus_bits: 384,
        l2_bytes: 96 << 20,
        copy_engines: 2,
        ecc: 1,
        ratio: 64,
    },
    Product {
        sm: 90,
        name: "Simulated H100 (sm_90)",
        multiprocessors: 132,
        carveouts: &[0, 8, 16, 32, 64, 100, 132, 164, 196, 228],
        clock_khz: 1_980_000,
        memory_khz: 2_619_000,
        bus_bits: 5120,
        l2_bytes: 50 << 20,
        copy_engines: 3,
        ecc: 1,
        ratio: 2,
    },
];

impl Chip {
    pub fn of(sm: u32) -> Option<Chip> {
        let product = PRODUCTS.iter().find(|product| product.sm == sm)?;
        Some(Chip { limits: Limits::of(sm)?, product })
    }

    /// Multiprocessors.
    pub fn multiprocessors(&self) -> u32 {
        self.product.multiprocessors as u32
    }
}

/// A device and its primary context.
pub(crate) struct Device {
    pub primary: CUcontext,
    pub primary_users: u32,
    pub primary_flags: c_uint,
    /// `CUDA_SIM_FAIL=lost:N` has happened.
    pub lost: bool,
    /// Bytes allocated.
    pub used: usize,
    pub default_pool: CUmemoryPool,
    pub pool: CUmemoryPool,
}

impl Device {
    pub fn new(pool: CUmemoryPool) -> Device {
        Device { primary: 0, primary_users: 0, primary_flags: 0, lost: false, used: 0, default_pool: pool, pool }
    }
}

/// The largest grid in x, and in y and z.
pub(crate) const MAX_GRID: [u32; 3] = [i32::MAX as u32, 65535, 65535];
/// The largest block in each direction.
pub(crate) const MAX_BLOCK: [u32; 3] = [1024, 1024, 64];
/// Threads of a warp.
pub(crate) const WARP: u32 = 32;

impl Driver {
    /// The value of a `CUdevice_attribute`.
    fn attribute(&self, attribute: c_uint, device: c_int) -> Answer<c_int> {
        self.device(device)?;
        let (chip, limits) = (self.chip.product, &self.chip.limits);
        let sm = chip.sm as c_int;
        let ampere = c_int::from(sm >= 80);
        Ok(match attribute {
            1 => Limits::BLOCK_THREADS as c_int,
            2..=4 => MAX_BLOCK[attribute as usize - 2] as c_int,
            5..=7 => MAX_GRID[attribute as usize - 5] as c_int,
            8 => Limits::SHARED_DEFAULT as c_int,
            9 => 65536,                       // constant memory
            10 => 32,                         // warp
            11 => i32::MAX,                   // pitch
            12 => Limits::REGISTERS as c_int, // a block
            13 => chip.clock_khz,
            14 => 512, // texture alignment
            15 => 1,   // copies overlap
            16 => chip.multiprocessors,
            17 => 0,       // no run time limit
            18 => 0,       // not integrated
            19 => 1,       // maps host memory
            20 => 0,       // compute mode: default
            21 => 131_072, // textures: what the hardware of this generation has, though there are none here
            22 => 131_072,
            23 => 65_536,
            24..=26 => 16_384,
            27 | 28 => 32_768,
            29 => 2048,
            30 => 512,
            31 => 1, // concurrent kernels
            32 => chip.ecc,
            33 => device + 1, // PCI bus
            34 => 0,          // PCI device
            35 => 0,          // not TCC
            36 => chip.memory_khz,
            37 => chip.bus_bits,
            38 => chip.l2_bytes,
            39 => (limits.warps * WARP) as c_int,
            40 => chip.copy_engines,
            41 => 1, // unified addressing
            42 => 32_768,
            43 => 2048,
            44 => 1,
            45 | 46 => 32_768,
            47 | 48 => 8192,
            49 => 32_768,
            50 => 0,  // PCI domain
            51 => 32, // texture pitch alignment
            52 | 53 => 32_768,
            54 => 2046,
            55 => 32_768,
            56 => 131_072,
            57 => 65_536,
            58..=60 => 16_384,
            61 => 32_768,
            62 => 2048,
            63 | 64 => 32_768,
            65 => 2048,
            66 | 67 => 32_768,
            68 => 2046,
            69 => 268_435_456,
            70 => 131_072,
            71 => 65_000,
            72 => 2_097_120,
            73 | 74 => 32_768,
            75 => sm / 10,
            76 => sm % 10,
            77 => 32_768,
            78 => 1,      // stream priorities
            79 | 80 => 1, // L1 caches global and local memory
            81 => limits.shared as c_int,
            82 => Limits::REGISTERS as c_int,
            83 => 1, // managed memory
            84 => 0, // one board a device
            85 => device,
            86 => 0, // no native atomics over the bus
            87 => chip.ratio,
            88 => 0,                  // no pageable memory access
            89 => 1,                  // concurrent managed access
            90 => 1,                  // preemption
            91 => 1,                  // a registered pointer is a device pointer
            92..=94 | 122 | 123 => 0, // no stream memory operations
            95 => 1,                  // cooperative launch
            96 => 0,                  // not over several devices
            97 => limits.shared_optin as c_int,
            98 => 0,
            99 => 1, // host register
            100 | 101 => 0,
            102 => 0,       // no virtual memory management
            103..=105 => 0, // no handles to share
            106 => limits.blocks as c_int,
            107 => 0,
            108 => ampere * (chip.l2_bytes / 4 * 3),
            109 => ampere * (128 << 20),
            110 => 0,
            111 => limits.shared_reserved as c_int,
            112 => 0,
            113 => 1, // read-only host register
            114 => 0,
            115 => 1, // memory pools
            116..=119 => 0,
            120 => 0, // no cluster launch here
            121 => 0,
            124 => 0,       // no DMA-BUF
            126 => 1,       // memory sync domains
            125..=129 => 0, // no IPC events, tensor maps, fabric handles, unified function pointers
            130 => 0,
            131 => -1, // no NUMA node of its own
            132..=140 => 0,
            _ => return Err(error::INVALID_VALUE),
        })
    }

    fn uuid(&self, device: c_int) -> Answer<CUuuid> {
        self.device(device)?;
        let mut bytes = *b"cuda-sim device\0";
        bytes[15] = device as u8;
        Ok(CUuuid { bytes })
    }

    fn bus_id(&self, device: c_int) -> Answer<String> {
        self.device(device)?;
        Ok(format!("0000:{:02X}:00.0", device + 1))
    }
}

/// Writes a string with its zero, cut to `length`.
unsafe fn put_text(text: &str, out: *mut c_char, length: c_int) -> Answer {
    let length = usize::try_from(length).ok().filter(|&n| n > 0 && !out.is_null()).ok_or(error::INVALID_VALUE)?;
    let bytes = &text.as_bytes()[..text.len().min(length - 1)];
    unsafe {
        std::ptr::copy_nonoverlapping(bytes.as_ptr().cast(), out, bytes.len());
        out.add(bytes.len()).write(0);
    }
    Ok(())
}

api! {
    [always] cuInit(flags: c_uint) |_now| {
        if flags != 0 {
            return Err(error::INVALID_VALUE);
        }
        state::initialise()
    }

    [always] cuDriverGetVersion(version: *mut c_int) |_now| { put(version, DRIVER_VERSION) }

    [driver] cuDeviceGet(device: *mut CUdevice, ordinal: c_int) |driver| {
        driver.device(ordinal)?;
        put(device, ordinal)
    }

    [driver] cuDeviceGetCount(count: *mut c_int) |driver| { put(count, driver.devices.len() as c_int) }

    [driver] cuDeviceGetName(name: *mut c_char, length: c_int, device: CUdevice) |driver| {
        driver.device(device)?;
        put_text(driver.chip.product.name, name, length)
    }

    [driver] cuDeviceGetUuid(uuid: *mut CUuuid, device: CUdevice) |driver| { put(uuid, driver.uuid(device)?) }

    [driver] cuDeviceGetUuid_v2(uuid: *mut CUuuid, device: CUdevice) |driver| { put(uuid, driver.uuid(device)?) }

    [driver] cuDeviceTotalMem_v2(bytes: *mut usize, device: CUdevice) |driver| {
        driver.device(device)?;
        put(bytes, driver.environment.memory)
    }

    [driver] cuDeviceGetAttribute(value: *mut c_int, attribute: c_uint, device: CUdevice) |driver| {
        put(value, driver.attribute(attribute, device)?)
    }

    [driver] cuDeviceComputeCapability(major: *mut c_int, minor: *mut c_int, device: CUdevice) |driver| {
        put(major, driver.attribute(75, device)?)?;
        put(minor, driver.attribute(76, device)?)
    }

    [driver] cuDeviceGetProperties(properties: *mut CUdevprop, device: CUdevice) |driver| {
        let of = |attribute| driver.attribute(attribute, device);
        put(properties, CUdevprop {
            maxThreadsPerBlock: of(1)?,
            maxThreadsDim: [of(2)?, of(3)?, of(4)?],
            maxGridSize: [of(5)?, of(6)?, of(7)?],
            sharedMemPerBlock: of(8)?,
            totalConstantMemory: of(9)?,
            SIMDWidth: of(10)?,
            memPitch: of(11)?,
            regsPerBlock: of(12)?,
            clockRate: of(13)?,
            textureAlign: of(14)?,
        })
    }

    [driver] cuDeviceGetPCIBusId(text: *mut c_char, length: c_int, device: CUdevice) |driver| {
        put_text(&driver.bus_id(device)?, text, length)
    }

    [driver] cuDeviceGetByPCIBusId(device: *mut CUdevice, text: *const c_char) |driver| {
        let text = string(text)?;
        let found = (0..driver.devices.len() as c_int)
            .find(|&i| driver.bus_id(i).is_ok_and(|id| id.eq_ignore_ascii_case(&text) || id[5..].eq_ignore_ascii_case(&text)));
        put(device, found.ok_or(error::INVALID_DEVICE)?)
    }

    [driver] cuDeviceGetExecAffinitySupport(supported: *mut c_int, kind: c_uint, device: CUdevice) |driver| {
        driver.device(device)?;
        put(supported, 0)
    }

    [driver] cuDeviceGetLuid(luid: *mut c_char, mask: *mut c_uint, device: CUdevice) |driver| {
        driver.device(device)?;
        Err(error::NOT_SUPPORTED) // Windows only
    }

    [driver] cuDeviceCanAccessPeer(can: *mut c_int, device: CUdevice, peer: CUdevice) |driver| {
        driver.device(device)?;
        driver.device(peer)?;
        put(can, c_int::from(device != peer))
    }

    [driver] cuDeviceGetP2PAttribute(value: *mut c_int, attribute: c_uint, from: CUdevice, to: CUdevice) |driver| {
        driver.device(from)?;
        driver.device(to)?;
        if from == to {
            return Err(error::INVALID_DEVICE);
        }
        put(value, match attribute {
            1 => 0,     // rank: the best
            2 => 1,     // access
            3 => 1,     // native atomics
            4 => 0,     // no arrays
            _ => return Err(error::INVALID_VALUE),
        })
    }

    [driver] cuDeviceGetGraphMemAttribute(device: CUdevice, attribute: c_uint, value: *mut c_void) |driver| {
        driver.device(device)?;
        if attribute > 3 {
            return Err(error::INVALID_VALUE);
        }
        put(value.cast::<u64>(), 0) // graphs own no memory here
    }

    [driver] cuDeviceGraphMemTrim(device: CUdevice) |driver| { driver.device(device).map(|_| ()) }

    [driver] cuDevicePrimaryCtxRetain(context: *mut CUcontext, device: CUdevice) |driver| {
        if context.is_null() {
            return Err(error::INVALID_VALUE);
        }
        let (primary, users, flags) = {
            let device = driver.device(device)?;
            if device.lost {
                return Err(error::ECC_UNCORRECTABLE);
            }
            (device.primary, device.primary_users, device.primary_flags)
        };
        let primary = if primary == 0 { driver.create_context(device, flags, true)? } else { primary };
        let device = driver.device_mut(device)?;
        device.primary = primary;
        device.primary_users = users.saturating_add(1);
        put(context, primary)
    }

    [driver] cuDevicePrimaryCtxRelease_v2(device: CUdevice) |driver| {
        let found = driver.device_mut(device)?;
        if found.primary_users == 0 {
            return Err(error::INVALID_CONTEXT);
        }
        found.primary_users -= 1;
        if found.primary_users == 0 {
            let primary = std::mem::take(&mut found.primary);
            driver.destroy_context(primary)?;
        }
        Ok(())
    }

    [driver] cuDevicePrimaryCtxReset_v2(device: CUdevice) |driver| {
        match driver.device(device)?.primary {
            0 => Ok(()),
            primary => driver.reset_context(primary),
        }
    }

    [driver] cuDevicePrimaryCtxSetFlags_v2(device: CUdevice, flags: c_uint) |driver| {
        driver.device(device)?;
        super::context::check_flags(flags)?;
        let device = driver.device_mut(device)?;
        device.primary_flags = flags;
        let primary = device.primary;
        if let Ok(context) = driver.contexts.find_mut(primary) {
            context.flags = flags;
        }
        Ok(())
    }

    [driver] cuDevicePrimaryCtxGetState(device: CUdevice, flags: *mut c_uint, active: *mut c_int) |driver| {
        let device = driver.device(device)?;
        if flags.is_null() || active.is_null() {
            return Err(error::INVALID_VALUE);
        }
        put_if(flags, device.primary_flags);
        put(active, c_int::from(device.primary != 0))
    }

    [driver] cuDeviceGetHostAtomicCapabilities(out: *mut c_uint, operations: *const c_uint, count: c_uint, device: CUdevice)
    |driver| {
        driver.device(device)?;
        if out.is_null() || count == 0 {
            return Err(error::INVALID_VALUE);
        }
        for (i, _) in get_many(operations, count as usize)?.into_iter().enumerate() {
            put(out.add(i), 0)?;
        }
        Ok(())
    }
}

#[cfg(test)]
mod tests {
    use super::*;

    #[test]
    fn chips_are_coherent() {
        for product in &PRODUCTS {
            let chip = Chip::of(product.sm).unwrap();
            assert_eq!(product.carveouts.last(), Some(&(chip.limits.shared >> 10)), "{}", product.name);
            assert!(product.carveouts.is_sorted());
            assert!(product.name.contains(&format!("sm_{}", product.sm)));
        }
    }
}
