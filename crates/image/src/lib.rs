//! Pictures to pixels, exactly as Pillow makes them.
