# The program on the CPU in an image of a few dozen megabytes:
#
#   docker build -t pheye .
#   docker run --rm -v "$PWD:/work" pheye ask picture.png "what color is the shape?"
#
# The program is static, so that the image needs no system. CUDA is left out: its driver is a shared library.
FROM rust:1.90-alpine AS build
# For the C and assembly of `ring` (TLS) and `zstd`.
RUN apk add --no-cache build-base
WORKDIR /source
COPY Cargo.toml Cargo.lock build.rs LICENSE-APACHE LICENSE-MIT ./
COPY .cargo .cargo
# Cargo wants every member of the workspace and every file that a manifest names, also those that are not built.
COPY benches benches
COPY crates crates
COPY kernels kernels
COPY xtask xtask
# The target of this toolchain is musl. The archive has the licences that have to be beside the program.
RUN cargo xtask archive --out /dist && mkdir /pheye && tar -xzf /dist/pheye-*.tar.gz -C /pheye --strip-components 1

FROM gcr.io/distroless/static-debian12:nonroot
COPY --from=build /pheye /opt/pheye
WORKDIR /work
ENTRYPOINT ["/opt/pheye/pheye"]
CMD ["--help"]
