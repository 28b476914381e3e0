# A static binary in an image that holds nothing else.
#   docker build -t gateway . && docker run -p 8080:8080 -v ./config.toml:/etc/gateway/config.toml:ro gateway

FROM golang:1.26-bookworm AS build
WORKDIR /src
COPY go.mod go.sum ./
RUN go mod download
COPY . .
ARG VERSION=container
RUN CGO_ENABLED=0 go build -trimpath -buildvcs=false -ldflags "-s -w -X main.version=${VERSION}" -o /out/gateway ./cmd/gateway
RUN mkdir -p /out/etc/gateway && cp config.toml /out/etc/gateway/config.toml

FROM scratch
COPY --from=build /etc/ssl/certs/ca-certificates.crt /etc/ssl/certs/ca-certificates.crt
COPY --from=build /out/gateway /gateway
COPY --from=build /out/etc/gateway /etc/gateway
# Not root, and no such user is needed in an empty image.
USER 65532:65532
ENV GATEWAY_LISTEN=:8080
EXPOSE 8080
HEALTHCHECK --interval=10s --timeout=3s --start-period=5s CMD ["/gateway", "healthcheck", "--config", "/etc/gateway/config.toml"]
ENTRYPOINT ["/gateway"]
CMD ["run", "--config", "/etc/gateway/config.toml"]
