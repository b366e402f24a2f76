client = None

def main():
    global client
    # client = Dial("sqlite3://:memory:")   # Using an in-memory database
    client = Dial("sqlite3://test1.db")     # Open/connect to the database file in the docker's directory

    # record handle
    sqlite3Handle = client.fd()
    Log("sqlite3Handle:", sqlite3Handle)

    # Querying tables in the database
    ret = client.exec("SELECT name FROM sqlite_master WHERE type='table'")
    Log(ret)

def onexit():
    Log("Execute client.close()")
    client.close()
