# syntax=docker/dockerfile:1

# Patchbay in a small image. The root can be read-only; what it writes lies in /data, plugins of your own in /plugins.
#
#   docker build -t patchbay .
#   docker run --read-only -p 8080:8080 -e PATCHBAY_API_TOKEN=… -v patchbay-data:/data -v ./lua-plugins:/plugins:ro patchbay

FROM rust:1-bookworm AS build
WORKDIR /src
COPY . .
# The target folder is a cache that does not stay in the layer, so the program is copied out of it in the same step.
RUN --mount=type=cache,target=/usr/local/cargo/registry \
    --mount=type=cache,target=/src/target \
    cargo build --release --locked --bin patchbay \
    && install -D target/release/patchbay /image/usr/local/bin/patchbay \
    && mkdir -p /image/data /image/plugins

# The C and C++ runtimes, which SQLite and Luau need, and nothing else: no shell, no package manager.
FROM gcr.io/distroless/cc-debian12
COPY --from=build /image/usr/local/bin/patchbay /usr/local/bin/patchbay
# New volumes take the owner of the folders they are mounted on.
COPY --from=build --chown=10001:10001 /image/data /data
COPY --from=build --chown=10001:10001 /image/plugins /plugins

# Outside of loopback Patchbay starts only with a token: give PATCHBAY_API_TOKEN when the container is run.
ENV PATCHBAY_LISTEN=0.0.0.0:8080 \
    PATCHBAY_DATABASE_URL=sqlite:///data/patchbay.db \
    PATCHBAY_PACKAGES=/data/packages \
    PATCHBAY_PLUGIN_PATHS=/plugins

USER 10001:10001
WORKDIR /data
VOLUME ["/data", "/plugins"]
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=10s CMD ["/usr/local/bin/patchbay", "health"]
ENTRYPOINT ["/usr/local/bin/patchbay"]
CMD ["serve"]
