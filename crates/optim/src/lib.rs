//! AdamW over one arena, schedules, clipping.
