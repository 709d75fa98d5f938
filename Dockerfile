# sidekey alone in an empty root: no shell, no libraries, no demo, no secrets. Secrets come in as files or variables at
# run time. `docker build -t sidekey:0.1.0 .`; for linux/amd64 and linux/arm64, each built on its own kind.

FROM rust:1.95-bookworm AS builder
SHELL ["/bin/bash", "-o", "pipefail", "-c"]
# musl's compiler for what is written in C; CMake for aws-lc, on platforms where its build wants it.
# hadolint ignore=DL3008
RUN apt-get update \
 && apt-get install --yes --no-install-recommends ca-certificates cmake musl-tools \
 && rm -rf /var/lib/apt/lists/* \
 && rustup target add "$(uname -m)-unknown-linux-musl"
WORKDIR /build
COPY Cargo.toml Cargo.lock ./
COPY src src
# The starter file of `sidekey init` is compiled in.
COPY config config
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/build/target \
    target="$(uname -m)-unknown-linux-musl" \
 && cargo build --release --locked --no-default-features --bin sidekey --target "$target" \
 && cp "target/$target/release/sidekey" /sidekey

FROM scratch
# The trusted roots; where there are none, those that are compiled in would do.
COPY --from=builder /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=builder /sidekey /sidekey
# In numbers, so that Kubernetes' runAsNonRoot can tell. It writes nothing: the root may be read-only.
USER 65532:65532
# By the same configuration as `run`: /etc/sidekey/sidekey.toml, $SIDEKEY_CONFIG or the environment.
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s \
    CMD ["/sidekey", "wait", "--for", "live", "--timeout", "2s"]
ENTRYPOINT ["/sidekey"]
CMD ["run"]
