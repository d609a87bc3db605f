// Kafka's own Java client. Speaks as ../README.md tells.

import com.fasterxml.jackson.databind.JsonNode;
import com.fasterxml.jackson.databind.ObjectMapper;
import com.fasterxml.jackson.databind.node.ArrayNode;
import com.fasterxml.jackson.databind.node.ObjectNode;
import java.io.BufferedReader;
import java.io.InputStreamReader;
import java.io.PrintStream;
import java.nio.ByteBuffer;
import java.time.Duration;
import java.util.ArrayList;
import java.util.Collection;
import java.util.HashMap;
import java.util.HexFormat;
import java.util.List;
import java.util.Map;
import java.util.Set;
import java.util.TreeSet;
import java.util.concurrent.CompletableFuture;
import java.util.concurrent.ExecutionException;
import java.util.concurrent.Future;
import java.util.concurrent.locks.LockSupport;
import org.apache.kafka.clients.admin.Admin;
import org.apache.kafka.clients.admin.AlterConfigOp;
import org.apache.kafka.clients.admin.ConfigEntry;
import org.apache.kafka.clients.admin.NewPartitions;
import org.apache.kafka.clients.admin.NewTopic;
import org.apache.kafka.clients.admin.OffsetSpec;
import org.apache.kafka.clients.admin.RecordsToDelete;
import org.apache.kafka.clients.consumer.ConsumerRebalanceListener;
import org.apache.kafka.clients.consumer.ConsumerRecord;
import org.apache.kafka.clients.consumer.CooperativeStickyAssignor;
import org.apache.kafka.clients.consumer.KafkaConsumer;
import org.apache.kafka.clients.consumer.RangeAssignor;
import org.apache.kafka.clients.producer.KafkaProducer;
import org.apache.kafka.clients.producer.ProducerRecord;
import org.apache.kafka.clients.producer.RecordMetadata;
import org.apache.kafka.common.TopicPartition;
import org.apache.kafka.common.config.ConfigResource;
import org.apache.kafka.common.errors.ApiException;
import org.apache.kafka.common.header.Header;
import org.apache.kafka.common.header.internals.RecordHeader;
import org.apache.kafka.common.protocol.Errors;
import org.apache.kafka.common.serialization.ByteArrayDeserializer;
import org.apache.kafka.common.serialization.ByteArraySerializer;
import org.apache.kafka.common.utils.AppInfoParser;

public class Adapter {
    static final ObjectMapper JSON = new ObjectMapper();

    final String bootstrap;
    Admin admin;
    KafkaConsumer<byte[], byte[]> consumer;
    final List<Integer> revoked = new ArrayList<>();
    KafkaProducer<byte[], byte[]> streamer;
    Thread streaming;
    volatile boolean isStreamOver;
    /// Its thread's alone, until that has ended.
    final List<Future<RecordMetadata>> streamed = new ArrayList<>();

    public static void main(String[] args) throws Exception {
        // Whatever a library prints must not end up between the answers.
        PrintStream answers = System.out;
        System.setOut(System.err);
        Adapter adapter = new Adapter(args[0]);
        BufferedReader requests = new BufferedReader(new InputStreamReader(System.in));
        for (String line = requests.readLine(); line != null; line = requests.readLine()) {
            answers.println(JSON.writeValueAsString(adapter.answer(JSON.readTree(line))));
        }
        System.exit(0);
    }

    Adapter(String bootstrap) {
        this.bootstrap = bootstrap;
    }

    ObjectNode answer(JsonNode request) {
        ObjectNode answer = JSON.createObjectNode();
        ObjectNode ok = JSON.createObjectNode();
        try {
            run(request, ok);
            answer.set("ok", ok);
        } catch (UnsupportedOperationException e) {
            answer.put("unsupported", e.getMessage());
        } catch (Exception e) {
            Throwable cause = e instanceof ExecutionException ? e.getCause() : e;
            cause.printStackTrace();
            answer.put("error", cause.toString());
            if (cause instanceof ApiException && Errors.forException(cause) != Errors.UNKNOWN_SERVER_ERROR) {
                answer.put("code", Errors.forException(cause).code());
            }
        }
        return answer;
    }

    void run(JsonNode request, ObjectNode ok) throws Exception {
        String topic = request.path("topic").asText();
        String group = request.path("group").asText();
        switch (request.get("op").asText()) {
            case "hello" -> hello(ok);
            case "produce" -> produce(topic, request, ok);
            case "stream" -> stream(topic, request);
            case "stream_end" -> streamEnd(ok);
            case "transaction" -> transaction(topic, request.get("transactional_id").asText());
            case "assign" -> assign(topic, request);
            case "subscribe" -> subscribe(topic, group, request);
            case "join" -> join(topic, group);
            case "poll" -> poll(request.get("ms").asLong(), ok);
            case "commit" -> consumer.commitSync();
            case "close" -> close();
            case "metadata" -> metadata(request.get("prefix").asText(), ok);
            case "create_topic" -> admin().createTopics(List.of(
                new NewTopic(topic, request.get("partitions").asInt(), (short) 1).configs(texts(request.get("configs"))))).all().get();
            case "create_topics" -> {
                List<NewTopic> topics = new ArrayList<>();
                request.get("topics").forEach(t -> topics.add(new NewTopic(t.asText(), 1, (short) 1)));
                admin().createTopics(topics).all().get();
            }
            case "delete_topic" -> admin().deleteTopics(List.of(topic)).all().get();
            case "describe_cluster" -> describeCluster(ok);
            case "describe_topic" -> {
                ArrayNode partitions = ok.putArray("partitions");
                admin().describeTopics(List.of(topic)).allTopicNames().get().get(topic).partitions().forEach(p -> partitions
                    .addArray().add(p.partition()).add(p.leader().id()).add(p.replicas().size()).add(p.isr().size()));
            }
            case "describe_configs" -> {
                ConfigResource resource = new ConfigResource(ConfigResource.Type.TOPIC, topic);
                ObjectNode configs = ok.putObject("configs");
                admin().describeConfigs(List.of(resource)).all().get().get(resource).entries()
                    .forEach(entry -> configs.put(entry.name(), entry.value()));
            }
            case "alter_configs" -> {
                List<AlterConfigOp> changes = new ArrayList<>();
                texts(request.get("configs")).forEach((name, value) ->
                    changes.add(new AlterConfigOp(new ConfigEntry(name, value), AlterConfigOp.OpType.SET)));
                admin().incrementalAlterConfigs(Map.of(new ConfigResource(ConfigResource.Type.TOPIC, topic), changes)).all().get();
            }
            case "create_partitions" ->
                admin().createPartitions(Map.of(topic, NewPartitions.increaseTo(request.get("count").asInt()))).all().get();
            case "list_offsets" -> listOffsets(topic, request, ok);
            case "delete_records" -> {
                TopicPartition place = new TopicPartition(topic, request.get("partition").asInt());
                RecordsToDelete before = RecordsToDelete.beforeOffset(request.get("before").asLong());
                ok.put("low", admin().deleteRecords(Map.of(place, before)).lowWatermarks().get(place).get().lowWatermark());
            }
            case "list_groups" -> {
                ArrayNode groups = ok.putArray("groups");
                admin().listGroups().all().get().forEach(g -> groups.add(g.groupId()));
            }
            case "describe_group" -> {
                var found = admin().describeConsumerGroups(List.of(group)).all().get().get(group);
                ok.put("state", found.groupState().toString()).put("members", found.members().size());
            }
            case "group_offsets" -> {
                ArrayNode offsets = ok.putArray("offsets");
                admin().listConsumerGroupOffsets(group).partitionsToOffsetAndMetadata().get().forEach((place, committed) ->
                    offsets.addArray().add(place.topic()).add(place.partition()).add(committed.offset()));
            }
            case "delete_group" -> admin().deleteConsumerGroups(List.of(group)).all().get();
            case "log_dirs" -> logDirs(topic, ok);
            default -> throw new UnsupportedOperationException("no " + request.get("op").asText());
        }
    }

    void hello(ObjectNode ok) {
        ok.put("version", AppInfoParser.getVersion());
        ArrayNode codecs = ok.putArray("codecs");
        List.of("none", "gzip", "snappy", "lz4", "zstd").forEach(codecs::add);
        ok.putArray("lacks");
    }

    Admin admin() {
        if (admin == null) {
            admin = Admin.create(Map.of("bootstrap.servers", bootstrap));
        }
        return admin;
    }

    void produce(String topic, JsonNode request, ObjectNode ok) throws Exception {
        Map<String, Object> config = Map.of(
            "bootstrap.servers", bootstrap, "compression.type", request.get("codec").asText(), "acks", request.get("acks").asText(),
            "enable.idempotence", request.get("idempotent").asBoolean(), "max.request.size", 20_000_000, "linger.ms", 5);
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            List<Future<RecordMetadata>> sent = new ArrayList<>();
            for (JsonNode record : request.get("records")) {
                List<Header> headers = new ArrayList<>();
                record.get("headers").forEach(h -> headers.add(new RecordHeader(h.get(0).asText(), bytes(h.get(1)))));
                Integer partition = record.get("partition").isNull() ? null : record.get("partition").asInt();
                Long timestamp = record.get("timestamp").isNull() ? null : record.get("timestamp").asLong();
                sent.add(producer.send(new ProducerRecord<>(
                    topic, partition, timestamp, bytes(record.get("key")), bytes(record.get("value")), headers)));
            }
            producer.flush();
            ArrayNode offsets = ok.putArray("offsets");
            for (Future<RecordMetadata> future : sent) {
                offsets.addArray().add(future.get().partition()).add(future.get().offset());
            }
        }
    }

    void stream(String topic, JsonNode request) {
        int partitions = request.get("partitions").asInt();
        int number = request.get("producer").asInt();
        long pause = 1_000_000_000L / request.get("per_second").asLong();
        Map<String, Object> config = new HashMap<>(texts(request.get("config")));
        config.put("bootstrap.servers", bootstrap);
        streamer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer());
        streaming = new Thread(() -> {
            while (!isStreamOver) {
                int at = streamed.size();
                byte[] value = ByteBuffer.allocate(12).putInt(number).putLong(at / partitions).array();
                try {
                    streamed.add(streamer.send(new ProducerRecord<>(topic, at % partitions, null, value)));
                } catch (RuntimeException e) {
                    streamed.add(CompletableFuture.failedFuture(e));
                }
                LockSupport.parkNanos(pause);
            }
        });
        streaming.start();
    }

    void streamEnd(ObjectNode ok) throws Exception {
        isStreamOver = true;
        streaming.join();
        // Waits for all that is on its way.
        streamer.close();
        ArrayNode errors = ok.putArray("errors");
        ArrayNode offsets = ok.put("sent", streamed.size()).putArray("offsets");
        for (Future<RecordMetadata> future : streamed) {
            try {
                offsets.addArray().add(future.get().partition()).add(future.get().offset());
            } catch (ExecutionException e) {
                errors.add(e.getCause().toString());
                offsets.addNull();
            }
        }
    }

    void transaction(String topic, String id) throws Exception {
        Map<String, Object> config = Map.of("bootstrap.servers", bootstrap, "transactional.id", id);
        try (var producer = new KafkaProducer<>(config, new ByteArraySerializer(), new ByteArraySerializer())) {
            producer.initTransactions();
            producer.beginTransaction();
            producer.send(new ProducerRecord<>(topic, "in a transaction".getBytes())).get();
            producer.commitTransaction();
        }
    }

    void open(Map<String, Object> more) {
        Map<String, Object> config = new HashMap<>(Map.of("enable.auto.commit", false));
        config.putAll(more);
        openWith(config);
    }

    void openWith(Map<String, Object> more) {
        close();
        revoked.clear();
        Map<String, Object> config = new HashMap<>(Map.of("bootstrap.servers", bootstrap, "auto.offset.reset", "earliest"));
        config.putAll(more);
        consumer = new KafkaConsumer<>(config, new ByteArrayDeserializer(), new ByteArrayDeserializer());
    }

    void assign(String topic, JsonNode request) {
        open(Map.of());
        Set<TopicPartition> places = places(topic, request);
        consumer.assign(places);
        switch (request.get("start").asText()) {
            case "start" -> consumer.seekToBeginning(places);
            case "end" -> {
                consumer.seekToEnd(places);
                // The look-up happens when the position is asked for.
                places.forEach(consumer::position);
            }
            default -> {
                Map<TopicPartition, Long> times = new HashMap<>();
                places.forEach(place -> times.put(place, request.get("start").asLong()));
                consumer.offsetsForTimes(times).forEach((place, found) -> {
                    if (found == null) {
                        consumer.seekToEnd(List.of(place));
                    } else {
                        consumer.seek(place, found.offset());
                    }
                });
            }
        }
    }

    void subscribe(String topic, String group, JsonNode request) {
        boolean eager = request.get("strategy").asText().equals("eager");
        int session = request.get("session_ms").asInt();
        Map<String, Object> config = new HashMap<>(Map.of(
            "group.id", group, "session.timeout.ms", session, "heartbeat.interval.ms", session / 6,
            "partition.assignment.strategy", eager ? RangeAssignor.class.getName() : CooperativeStickyAssignor.class.getName()));
        if (!request.get("instance").isNull()) {
            config.put("group.instance.id", request.get("instance").asText());
        }
        open(config);
        subscribeTo(topic);
    }

    void join(String topic, String group) {
        openWith(Map.of("group.id", group));
        subscribeTo(topic);
    }

    void subscribeTo(String topic) {
        consumer.subscribe(List.of(topic), new ConsumerRebalanceListener() {
            @Override
            public void onPartitionsAssigned(Collection<TopicPartition> partitions) { }

            @Override
            public void onPartitionsRevoked(Collection<TopicPartition> partitions) {
                partitions.forEach(p -> revoked.add(p.partition()));
            }
        });
    }

    void poll(long ms, ObjectNode ok) {
        ArrayNode records = ok.putArray("records");
        for (ConsumerRecord<byte[], byte[]> record : consumer.poll(Duration.ofMillis(ms))) {
            ArrayNode out = records.addArray().add(record.partition()).add(record.offset()).add(record.timestamp());
            out.add(hex(record.key())).add(hex(record.value()));
            ArrayNode headers = out.addArray();
            record.headers().forEach(h -> headers.addArray().add(h.key()).add(hex(h.value())));
        }
        ArrayNode assignment = ok.putArray("assignment");
        Set<Integer> held = new TreeSet<>();
        consumer.assignment().forEach(p -> held.add(p.partition()));
        held.forEach(assignment::add);
        ArrayNode taken = ok.putArray("revoked");
        revoked.forEach(taken::add);
        revoked.clear();
    }

    void close() {
        if (consumer != null) {
            consumer.close();
        }
        consumer = null;
    }

    void metadata(String prefix, ObjectNode ok) throws Exception {
        List<String> names = admin().listTopics().names().get().stream().filter(n -> n.startsWith(prefix)).toList();
        ArrayNode topics = ok.putArray("topics");
        admin().describeTopics(names).allTopicNames().get().values().forEach(t ->
            topics.addArray().add(t.name()).add(t.partitions().size()));
    }

    void describeCluster(ObjectNode ok) throws Exception {
        var cluster = admin().describeCluster();
        ok.put("cluster_id", cluster.clusterId().get()).put("controller", cluster.controller().get().id());
        ArrayNode brokers = ok.putArray("brokers");
        cluster.nodes().get().forEach(n -> brokers.addArray().add(n.id()).add(n.host()).add(n.port()));
    }

    void listOffsets(String topic, JsonNode request, ObjectNode ok) throws Exception {
        OffsetSpec spec = switch (request.get("at").asText()) {
            case "start" -> OffsetSpec.earliest();
            case "end" -> OffsetSpec.latest();
            default -> OffsetSpec.forTimestamp(request.get("at").asLong());
        };
        Map<TopicPartition, OffsetSpec> asked = new HashMap<>();
        places(topic, request).forEach(place -> asked.put(place, spec));
        ArrayNode offsets = ok.putArray("offsets");
        admin().listOffsets(asked).all().get().forEach((place, found) ->
            offsets.addArray().add(place.partition()).add(found.offset()));
    }

    void logDirs(String topic, ObjectNode ok) throws Exception {
        long size = 0;
        var nodes = admin().describeCluster().nodes().get().stream().map(n -> n.id()).toList();
        for (var dirs : admin().describeLogDirs(nodes).allDescriptions().get().values()) {
            for (var dir : dirs.values()) {
                for (var replica : dir.replicaInfos().entrySet()) {
                    size += replica.getKey().topic().equals(topic) ? replica.getValue().size() : 0;
                }
            }
        }
        ok.put("size", size);
    }

    static Set<TopicPartition> places(String topic, JsonNode request) {
        Set<TopicPartition> places = new java.util.HashSet<>();
        request.get("partitions").forEach(p -> places.add(new TopicPartition(topic, p.asInt())));
        return places;
    }

    static Map<String, String> texts(JsonNode object) {
        Map<String, String> texts = new HashMap<>();
        object.fields().forEachRemaining(field -> texts.put(field.getKey(), field.getValue().asText()));
        return texts;
    }

    static byte[] bytes(JsonNode hex) {
        return hex.isNull() ? null : HexFormat.of().parseHex(hex.asText());
    }

    static String hex(byte[] bytes) {
        return bytes == null ? null : HexFormat.of().formatHex(bytes);
    }
}
