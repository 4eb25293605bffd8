# The operator's image: one static program and the migration bundles, nothing else. Two ways to the same final stage:
#   docker build -t IMAGE .    compiles in the public Rust image
#   make image                 compiles with cargo on this machine (incremental, no builder image) and hands the program in as
#                              the stage "build", by --build-context build=FOLDER of buildah or docker buildx
FROM docker.io/library/rust:1.95-alpine AS build
RUN apk add --no-cache musl-dev
# The image's own toolchain: the musl target that rust-toolchain.toml asks for is what Alpine compiles for anyway.
ENV RUSTUP_TOOLCHAIN=1.95.0
WORKDIR /src
COPY . .
RUN cargo build --release --locked && install -D -m 0755 target/release/amas-operator /out/amas-operator

FROM scratch
ARG VERSION=0.1.0
ARG REVISION=unknown
LABEL org.opencontainers.image.title="amas-operator" \
      org.opencontainers.image.description="Runs the data layer of agent platforms (PostgreSQL, Redis, Neo4j) and says honestly when it is ready" \
      org.opencontainers.image.source="https://github.com/amas-dev/amas-operator" \
      org.opencontainers.image.licenses="Apache-2.0" \
      org.opencontainers.image.version="$VERSION" \
      org.opencontainers.image.revision="$REVISION"
# What changes least comes first.
COPY migrations /migrations
COPY --from=build /out/amas-operator /amas-operator
USER 65532:65532
EXPOSE 8080
ENTRYPOINT ["/amas-operator"]
CMD ["run"]
