# One image for all three programs. They are static: `make image` builds them before.
FROM scratch
LABEL org.opencontainers.image.title="pvmigrate" \
      org.opencontainers.image.description="Moves PersistentVolumeClaims to another StorageClass, in place" \
      org.opencontainers.image.licenses="Apache-2.0"
COPY pvmigrate pvmigrate-webhook pvmigrate-mover /
USER 65532:65532
ENTRYPOINT ["/pvmigrate"]
