# sidekey alone: no shell, no package manager, no demo, no secrets. Secrets come in as files or variables at run time.

FROM rust:1.95-bookworm AS builder
# For aws-lc, on platforms where its build wants it.
RUN apt-get update \
 && apt-get install --yes --no-install-recommends cmake \
 && rm -rf /var/lib/apt/lists/*
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
# The starter file of `sidekey init` is compiled in.
COPY config config
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    cargo build --release --locked --no-default-features \
 && cp target/release/sidekey /sidekey

# Holds glibc, libgcc and the trusted roots; runs as user 65532.
FROM gcr.io/distroless/cc-debian12:nonroot
COPY --from=builder /sidekey /sidekey
# In numbers, so that Kubernetes' runAsNonRoot can tell.
USER 65532:65532
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/sidekey", "wait", "--for", "live", "--timeout", "2s"]
ENTRYPOINT ["/sidekey"]
CMD ["run"]
