# We need to configure and deploy proxy servers for each protocol first.
# For the sake of demonstration, the subscription (read operation) and publishing (write operation) of the topic test_topic are all performed in the current strategy.
arrConn = []
arrName = []

def main():
    global arrConn, arrName
    LogReset(1)
    conn_nats = Dial("nats://admin@127.0.0.1:4222?topic=test_topic")
    conn_mqtt = Dial("mqtt://127.0.0.1:1883?topic=test_topic")
    conn_amqp = Dial("amqp://q:admin@127.0.0.1:5672/?queue=test_Queue")
    conn_kafka = Dial("kafka://localhost:9092/test_topic")
    arrConn = [conn_nats, conn_amqp, conn_mqtt, conn_kafka]
    arrName = ["nats", "amqp", "mqtt", "kafka"]
    while True:
        for i in range(len(arrConn)):
            conn = arrConn[i]
            name = arrName[i]

            # Write data
            conn.write(name + ", time: " + _D() + ", test msg.")

            # Read data
            readMsg = conn.read(1000)
            Log(name + " readMsg: ", readMsg, "#FF0000")
        Sleep(1000)

def onexit():
    for i in range(len(arrConn)):
        arrConn[i].close()
        Log("close", arrName[i], "connect")
