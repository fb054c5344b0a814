module github.com/isa-cloud/isa_cloud/pkg/infrastructure/event/nats/tools/lint

go 1.26
